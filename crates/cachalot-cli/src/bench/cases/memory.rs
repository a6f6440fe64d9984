//! What the process holds, as the kernel counts it.

/// A field of a status file in `/proc`, in the unit that stands there; 0 where there is none.
fn field(path: &str, name: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string(path) else {
        return 0;
    };
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The most memory that this process ever had in use.
pub(crate) fn peak_bytes() -> u64 {
    field("/proc/self/status", "VmHWM") << 10
}

/// The memory that this process has in use.
pub(crate) fn resident_bytes() -> u64 {
    field("/proc/self/status", "VmRSS") << 10
}

/// The part of that which is pages of the program and its libraries.
pub(crate) fn program_bytes() -> u64 {
    field("/proc/self/status", "RssFile") << 10
}

/// How often the calling thread had to give its processor to another.
pub(crate) fn preemptions() -> u64 {
    field("/proc/thread-self/status", "nonvoluntary_ctxt_switches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_the_process_holds() {
        let (before, data) = (resident_bytes(), vec![1_u8; 64 << 20]);
        let grown = resident_bytes().saturating_sub(before);
        assert!(data.contains(&1));
        assert!(grown > 32 << 20, "{grown}");
        assert!(peak_bytes() >= 64 << 20);
        assert!((1..resident_bytes()).contains(&program_bytes()));
    }
}
