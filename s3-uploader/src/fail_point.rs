//! Steps of the object tier after which a test lets the process die: offload, manifest, trim, merge
//! and delete, one after the other.
//!
//! `TAILRACE_FAIL_POINT=offload.stored` kills the process with SIGKILL when it passes that step the
//! first time, `offload.stored:3` the third time. The binary that is tested is the one that ships:
//! a step is passed a few times a second at most, and costs a load when nothing is armed.

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::process::{Signal, getpid, kill_process};

/// The environment variable that arms a step.
pub const FAIL_POINT_VARIABLE: &str = "TAILRACE_FAIL_POINT";

static ARMED: OnceLock<Armed> = OnceLock::new();

macro_rules! fail_points {
    ($($point:ident $name:literal)*) => {
        /// A step; its name says after what.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum FailPoint { $(#[doc = $name] $point),* }

        impl FailPoint {
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$point, $name)),*];
        }
    };
}

fail_points! {
    OffloadGathered "offload.gathered"
    PutWritten "put.written"
    PutDone "put.done"
    OffloadStored "offload.stored"
    OffloadProposed "offload.proposed"
    OffloadApplied "offload.applied"
    SnapshotBegun "snapshot.begun"
    SnapshotDurable "snapshot.durable"
    WalTrimmed "wal.trimmed"
    ManifestBegun "manifest.begun"
    ManifestStored "manifest.stored"
    MergeBegun "merge.begun"
    MergeRead "merge.read"
    MergeStored "merge.stored"
    MergeProposed "merge.proposed"
    MergeApplied "merge.applied"
    LogStartApplied "log-start.applied"
    DeleteBegun "delete.begun"
    DeleteDone "delete.done"
    DeleteApplied "delete.applied"
    SweepListed "sweep.listed"
    SweepDone "sweep.done"
}

/// Which step kills, and at which pass.
#[derive(Debug)]
pub struct Armed {
    point: FailPoint,
    passes_left: AtomicU32,
}

/// What is in the variable is no step.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is not NAME or NAME:COUNT with the name of a step, like offload.stored")]
pub struct FailPointError {
    text: String,
}

impl FromStr for Armed {
    type Err = FailPointError;

    fn from_str(text: &str) -> Result<Self, FailPointError> {
        let wrong = || FailPointError { text: text.to_owned() };
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let passes: u32 = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        let known = FailPoint::ALL.iter().find(|(_, known)| *known == name).ok_or_else(wrong)?;
        Ok(Self { point: known.0, passes_left: AtomicU32::new(passes) })
    }
}

impl Armed {
    /// Whether this pass is the one.
    fn is_due(&self, point: FailPoint) -> bool {
        self.point == point && self.passes_left.fetch_sub(1, Relaxed) == 1
    }
}

/// Arms a step for the rest of the process; a second one is not armed.
pub fn arm(armed: Armed) {
    // Only a test arms, once.
    let _ = ARMED.set(armed);
}

/// Passes a step.
pub fn fail_point(point: FailPoint) {
    if ARMED.get().is_some_and(|armed| armed.is_due(point)) {
        kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_over_all_steps_knows_them() {
        let run = include_str!("../../tools/crash/steps.py");
        for (_, name) in FailPoint::ALL {
            assert!(run.contains(&format!("\"{name}\"")), "{name}");
        }
    }

    #[test]
    fn a_step_is_due_at_its_pass_only() {
        for (point, name) in FailPoint::ALL {
            let armed: Armed = format!("{name}:3").parse().expect("a step");
            let dues: Vec<bool> = (0..5).map(|_| armed.is_due(*point)).collect();
            assert_eq!(dues, [false, false, true, false, false], "{name}");
        }
        let armed: Armed = "put.done".parse().expect("a step");
        assert!(!armed.is_due(FailPoint::PutWritten) && armed.is_due(FailPoint::PutDone));
        for text in ["", "put", "put.done:", "put.done:0", "put.done:x", "put.done:1:1"] {
            assert!(text.parse::<Armed>().is_err(), "{text}");
        }
    }
}
