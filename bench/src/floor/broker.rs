//! (c): a broker of its own, as a child process.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::BenchError;
use crate::clock::sleep;

/// Zero-filling the WAL is the longest part of a first start.
const START_MAX: Duration = Duration::from_secs(180);
const STOP_MAX: Duration = Duration::from_secs(15);
const STOP_CHECK: Duration = Duration::from_millis(20);

/// A broker that ends with this value.
pub(super) struct Broker {
    child: Child,
    pub(super) address: SocketAddr,
    data_dir: PathBuf,
    /// Removed at the end: it was not there before.
    temporary: bool,
}

impl Broker {
    /// Starts `program` on core 0 with its data in `data_dir`, and waits until it serves.
    pub(super) fn start(program: &Path, data_dir: &Path) -> Result<Self, BenchError> {
        let failed = |why: String| BenchError::Broker { program: program.to_owned(), why };
        let free_port = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.local_addr()
        };
        let address = free_port().map_err(BenchError::io("find a free port"))?;
        let admin = free_port().map_err(BenchError::io("find a free port"))?;
        let temporary = !data_dir.exists();
        let mut child = Command::new(program)
            .args(["dev", "--cores", "1", "--wal-size", "1GiB"])
            .args(["--listen", &address.to_string(), "--admin", &admin.to_string()])
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdout = child.stdout.take();
        let broker = Self { child, address, data_dir: data_dir.to_owned(), temporary };
        let (ready, is_ready) = mpsc::channel();
        // Reads on after that, so that the broker never waits for a full pipe.
        let reader = move || {
            for line in stdout.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()) {
                if line.is_ok_and(|line| line.starts_with("ready on ")) {
                    let _ = ready.send(());
                }
            }
        };
        uring::spawn_pinned("broker-output", None, reader)
            .map_err(BenchError::io("start a thread"))?;
        match is_ready.recv_timeout(START_MAX) {
            Ok(()) => Ok(broker),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(failed("not ready after 180 s".to_owned())),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(failed("it ended instead of serving; its message is above".to_owned()))
            }
        }
    }

    fn stop(&mut self) -> io::Result<()> {
        if let Some(pid) =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // Not there any more: also stopped.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        for _ in 0..STOP_MAX.as_millis() / STOP_CHECK.as_millis() {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            sleep(STOP_CHECK);
        }
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing better can be done: what was measured stands.
        let _ = self.stop();
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.data_dir);
        }
    }
}
