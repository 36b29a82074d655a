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

/// Keeps the calling thread, and the threads that it starts from now on without a core of their
/// own, off the first `count` of those CPUs. If that leaves none, they may use all, and it says so
/// by false.
pub fn avoid_cores(count: usize) -> io::Result<bool> {
    let all = allowed()?;
    let mut set = all;
    for cpu in cpus(&all).take(count) {
        set.unset(cpu);
    }
    let some_left = set.count() > 0;
    sched_setaffinity(None, if some_left { &set } else { &all })?;
    Ok(some_left)
}

/// Starts a thread bound to `core` (see [`pin_to_core`]), or free to run where the caller may.
pub fn spawn_pinned<F, T>(name: &str, core: Option<usize>, f: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let all = allowed()?;
    if let Some(core) = core {
        cpu_set(&all, core)?;
    }
    Builder::new().name(name.to_owned()).spawn(move || {
        if let Some(core) = core {
            // It was there a moment ago. If it has gone, running elsewhere is slower, not wrong.
            let _ = pin_to_core(core);
        }
        f()
    })
}

fn cpus(set: &CpuSet) -> impl Iterator<Item = usize> {
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu))
}

fn cpu_set(allowed: &CpuSet, core: usize) -> io::Result<CpuSet> {
    let count = allowed.count();
    let cpu = cpus(allowed).nth(core).ok_or_else(|| {
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

    fn of_thread(f: impl FnOnce() -> CpuSet + Send + 'static) -> Vec<usize> {
        let thread = spawn_pinned("test", None, f).expect("a thread starts");
        cpus(&thread.join().expect("no panic")).collect()
    }

    fn current() -> CpuSet {
        sched_getaffinity(None).expect("affinity is readable")
    }

    #[test]
    fn a_pinned_thread_may_use_one_core_and_another_what_its_parent_may() {
        let all: Vec<_> = cpus(&allowed().expect("affinity is readable")).collect();
        let last = all.len() - 1;
        let pinned = spawn_pinned("pinned", Some(last), current).expect("a thread starts");
        let pinned: Vec<_> = cpus(&pinned.join().expect("no panic")).collect();
        assert_eq!(pinned, all[last..]);
        assert_eq!(of_thread(current), all);
    }

    #[test]
    fn cores_are_left_to_those_who_have_them() {
        let all: Vec<_> = cpus(&allowed().expect("affinity is readable")).collect();
        let beside = |count, some_left| {
            of_thread(move || {
                assert_eq!(avoid_cores(count).expect("an affinity can be set"), some_left);
                let heir = spawn_pinned("heir", None, current).expect("a thread starts");
                heir.join().expect("no panic")
            })
        };
        assert_eq!(beside(0, true), all);
        assert_eq!(beside(all.len() - 1, true), all[all.len() - 1..]);
        assert_eq!(beside(all.len(), false), all);
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        let error = spawn_pinned("none", Some(100_000), || ()).expect_err("no such core");
        assert!(error.to_string().contains("there is no core 100000"), "{error}");
    }
}
