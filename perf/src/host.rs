//! `perf host`: the machine, as far as it shows in latencies.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

/// Facts as the kernel tells them; empty where it does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_kib: u64,
    /// How the clock of core 0 is governed; empty on most virtual machines.
    pub governor: String,
    /// One, five and fifteen minutes.
    pub load_average: String,
    pub devices: BTreeMap<String, Device>,
}

/// A block device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Device {
    pub model: String,
    /// `write back`: durable only with a flush; `write through`: durable when completed.
    pub write_cache: String,
    pub scheduler: String,
    pub logical_block_size: String,
}

impl Host {
    /// Reads `/proc` and `/sys` below `root`, which is `/` but in tests.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| line(&root.join(path));
        let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
        let field = |name: &str| {
            let found = cpuinfo.lines().find(|line| line.starts_with(name));
            let value = found.and_then(|line| line.split_once(':'));
            value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let memory =
            memory.and_then(|value| value.trim().trim_end_matches("kB").trim().parse().ok());
        Self {
            kernel: text("proc/sys/kernel/osrelease"),
            cpu: field("model name"),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_kib: memory.unwrap_or_default(),
            governor: text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            load_average: text("proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            devices: devices(&root.join("sys/block")),
        }
    }
}

fn devices(folder: &Path) -> BTreeMap<String, Device> {
    let mut devices = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = |path: &str| line(&entry.path().join(path));
        let device = Device {
            model: text("device/model"),
            write_cache: text("queue/write_cache"),
            scheduler: text("queue/scheduler"),
            logical_block_size: text("queue/logical_block_size"),
        };
        devices.insert(name, device);
    }
    devices
}

fn line(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_from_proc_and_sys() {
        let root = std::env::temp_dir().join(format!("perf-host-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/osrelease", "6.1.0\n");
        write("proc/cpuinfo", "processor\t: 0\nmodel name\t: A: B\n\nprocessor\t: 1\n");
        write("proc/meminfo", "MemTotal:       1024 kB\nMemFree: 1 kB\n");
        write("proc/loadavg", "0.50 1.00 2.00 1/99 7\n");
        write("sys/block/vda/queue/write_cache", "write back\n");
        let host = Host::read(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!((&*host.kernel, &*host.cpu, host.cores), ("6.1.0", "A: B", 2));
        assert_eq!((host.memory_kib, &*host.load_average), (1024, "0.50 1.00 2.00"));
        assert_eq!(host.devices["vda"].write_cache, "write back");
        assert_eq!(host.governor, "");
    }

    #[test]
    fn a_machine_that_tells_nothing_is_no_error() {
        assert_eq!(Host::read(Path::new("/nonexistent")), Host::default());
    }
}
