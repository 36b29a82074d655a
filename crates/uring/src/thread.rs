//! Threads on cores.

use std::io;
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPUs this process may use, as found by the first call in it, before any thread was pinned.
fn allowed() -> io::Result<CpuSet> {
    static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
    if let Some(set) = ALLOWED.get() {
        return Ok(*set);
    }
    let set = sched_getaffinity(None)?;
    Ok(*ALLOWED.get_or_init(|| set))
}

/// How many CPUs this process may use (its affinity, for example by cgroup or `taskset`); at least
/// 1. Call it, or anything else of this module, from the main thread first.
pub fn core_count() -> usize {
    allowed().map_or(1, |set| (set.count() as usize).max(1))
}

/// Binds the calling thread to the `core`-th of the CPUs that the process may use, from 0.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    let set = cpu_set(&allowed()?, core)?;
    Ok(sched_setaffinity(None, &set)?)
}

/// Starts a thread bound to `core` (see [`pin_to_core`]), or free to run on all of the process's
/// CPUs, whatever the caller is bound to.
pub fn spawn_pinned<F, T>(name: &str, core: Option<usize>, f: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let everywhere = allowed()?;
    if let Some(core) = core {
        cpu_set(&everywhere, core)?;
    }
    Builder::new().name(name.to_owned()).spawn(move || {
        // The core was there a moment ago. If it has gone, running elsewhere is slower, not wrong.
        let _ = match core {
            Some(core) => pin_to_core(core),
            None => sched_setaffinity(None, &everywhere).map_err(io::Error::from),
        };
        f()
    })
}

fn cpu_set(allowed: &CpuSet, core: usize) -> io::Result<CpuSet> {
    let count = allowed.count();
    let cpu =
        (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).nth(core).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("there is no core {core}: this process may use {count}, counted from 0"),
            )
        })?;
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_one_core_and_a_free_one_all() {
        let total = core_count();
        let count =
            || sched_getaffinity(None).map(|set| set.count()).expect("affinity is readable");
        let (pinned, free) = spawn_pinned("outer", Some(total - 1), move || {
            let inner = spawn_pinned("inner", None, count).expect("a thread starts");
            (count(), inner.join().expect("no panic"))
        })
        .expect("a thread starts")
        .join()
        .expect("no panic");
        assert_eq!((pinned, free as usize), (1, total));
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        let error = spawn_pinned("none", Some(100_000), || ()).expect_err("no such core");
        assert!(error.to_string().contains("there is no core 100000"), "{error}");
    }
}
