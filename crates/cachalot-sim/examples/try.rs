fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let (first, runs, steps) = (args[0], args[1], args[2] as u32);
    let jobs = args.get(3).copied().unwrap_or(1) as usize;
    if runs == 1 {
        let plan = cachalot_sim::Plan::draw(first, steps);
        let a = cachalot_sim::run(&plan, false);
        println!("{} ops, {:?}, digest {:x}, {:?}", a.operations, a.time, a.digest, a.failure);
        let b = cachalot_sim::run(&plan, false);
        println!("again: digest {:x} {:?}", b.digest, b.failure);
        if a.failure.is_some() {
            let kept = cachalot_sim::shrink(&plan, 400);
            let small = plan.only(&kept);
            let o = cachalot_sim::run(&small, true);
            println!("{:#?}", small.sets);
            println!("{:?} {:?} cow {}", small.config, small.capabilities, small.copy_on_write);
            let w = o.log.iter().position(|l| l.contains("WRONG")).unwrap_or(o.log.len()); for line in &o.log[w.saturating_sub(90)..w+1] { println!("{line}"); }
            println!("kept {kept:?}: {:?}", o.failure);
        }
        return;
    }
    let (p, f) = cachalot_sim::search(cachalot_sim::Search { first_seed: first, runs, time: std::time::Duration::from_secs(3000), jobs, steps }, |_| ());
    println!("{p:?}");
    if let Some(f) = f { println!("seed {} after {} ops: {:?}", f.plan.seed, f.outcome.operations, f.outcome.failure); }
}
