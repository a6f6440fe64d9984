//! `cachalot serve` and `cachalot ctl`, as an operator runs them.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Stdio};

use crate::common::{Place, command, fails, json, ok, text};

/// A running server; it is killed with this.
pub(crate) struct Server {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

impl Server {
    /// Starts one, and waits until it says that it takes orders.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = command(&[&["serve"], arguments].concat())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let said = BufReader::new(child.stderr.take().expect("its standard error"));
        let mut server = Self { child, said };
        server.wait_for("cachalot ctl");
        server
    }

    /// Reads what it says until a line holds this.
    fn wait_for(&mut self, wanted: &str) -> String {
        let mut line = String::new();
        while !line.contains(wanted) {
            line.clear();
            let read = self.said.read_line(&mut line).expect("what it says");
            assert!(read > 0, "the server ended before it said: {wanted}");
        }
        line
    }
}

#[test]
fn a_server_is_asked_told_and_drained() {
    let place = Place::new();
    let (store, socket) = (place.store(), place.path("socket"));
    let listen = format!("unix:{}", socket.display());
    let arguments = [&store, "disk", "--create", "--size", "1MiB", "--listen"];
    let mut server = Server::start(&[&arguments[..], &[&listen]].concat());
    let ctl = |words: &[&str]| ok(&[&["ctl", "--listen", &listen], words].concat());
    let told = json(&["ctl", "--listen", &listen, "--json", "stats"]);
    assert_eq!(told["volumes"][0]["mode"], "writeback");
    let table = ctl(&["stats"]);
    for name in ["write_back_errors", "dirty_buffers", "99 % below"] {
        assert!(table.contains(name), "{table}");
    }
    assert_eq!(ctl(&["mode", "read-only"]), "disk: read-only\n");
    assert_eq!(ctl(&["mode"]), "disk: read-only\n");
    assert_eq!(ctl(&["flush", "--volume", "disk"]), "stored: disk\n");
    assert!(ctl(&["limits", "--dirty", "2MiB"]).contains("2.0 MiB"));
    assert!(ctl(&["release"]).contains("kept"));
    assert!(ctl(&["dump"]).contains("disk: 0 objects"));
    let refused = [
        (4, &["flush", "--volume", "other"][..]),
        (2, &["limits", "--dirty", "1TiB"]),
    ];
    for (code, words) in refused {
        fails(&[&["ctl", "--listen", &listen], words].concat(), code);
    }
    assert!(ctl(&["drain"]).contains("all is stored"));
    assert!(server.child.wait().expect("its end").success());
    assert!(!socket.exists() && !place.path("socket.ctl").exists());
    // The next one can start as soon as the command ends.
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Server::start(&[&store, "disk", "--listen", &listen]));
        assert!(ctl(&["drain"]).contains("all is stored"));
    }
    let nobody = place.path("socket.ctl");
    let refused = fails(&["ctl", "--socket", text(&nobody), "stats"], 1);
    assert!(refused.contains("connect"), "{refused}");
}

#[test]
fn a_server_that_may_only_read_can_not_be_switched() {
    let place = Place::new();
    let (store, admin) = (place.store(), place.path("admin"));
    ok(&["volume", "create", &store, "disk", "--size", "1MiB"]);
    let listen = format!("unix:{}", place.path("socket").display());
    let arguments = [&store, "disk", "--read-only", "--listen", &listen];
    let server = Server::start(&[&arguments[..], &["--admin", text(&admin)]].concat());
    let refused = fails(&["ctl", "--socket", text(&admin), "mode", "writeback"], 2);
    assert!(refused.contains("--read-only"), "{refused}");
    drop(server);
}
