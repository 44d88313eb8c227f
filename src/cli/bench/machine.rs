//! The machine that was measured on, in its own words.

use std::fs;
use std::thread;

use serde::Serialize;

/// PROC_PID_INIT_INO (linux/proc_ns.h): the PID namespace that sees all others.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What it says of itself; empty or zero where it says nothing.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Machine {
    /// `model name` of /proc/cpuinfo.
    pub(super) cpu: String,
    /// CPUs this process may use.
    pub(super) cpus: usize,
    /// A hypervisor runs it.
    pub(super) virtual_machine: bool,
    pub(super) memory_mib: u64,
    /// Kernel release and build.
    pub(super) kernel: String,
    /// What the kernel tells time by.
    pub(super) clocksource: String,
    /// Load averages at the start, over 1, 5 and 15 minutes.
    pub(super) load: String,
    /// /proc shows every process of the machine: else what others use goes unseen.
    pub(super) all_processes_seen: bool,
    /// This program's.
    pub(super) version: &'static str,
    /// Whether the compiler was told to optimize: figures of a debug build say nothing.
    pub(super) optimized: bool,
}

impl Machine {
    /// Reads /proc and /sys.
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let memory_kib = field(&text("/proc/meminfo"), "MemTotal")
            .and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
        let kernel = ["osrelease", "version"]
            .map(|name| text(&format!("/proc/sys/kernel/{name}")).trim().to_owned());
        let load: Vec<_> = text("/proc/loadavg")
            .split(' ')
            .take(3)
            .map(str::to_owned)
            .collect();
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_default(),
            cpus: thread::available_parallelism().map_or(0, usize::from),
            virtual_machine: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            kernel: kernel.join(" "),
            clocksource: text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
                .trim()
                .to_owned(),
            load: load.join(" "),
            all_processes_seen: fs::read_link("/proc/self/ns/pid")
                .is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE),
            version: env!("CARGO_PKG_VERSION"),
            optimized: !cfg!(debug_assertions),
        }
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        let Self {
            cpus,
            cpu,
            memory_mib,
            kernel,
            load,
            version,
            ..
        } = self;
        let kind = if self.virtual_machine {
            ", virtual"
        } else {
            ""
        };
        format!(
            "silk-vtep {version} on {cpus} x {cpu}{kind}, {memory_mib} MiB, Linux {kernel}, load {load}"
        )
    }
}

/// The value of the first `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: AMD EPYC\nflags : fpu hypervisor\n";
        assert_eq!(field(text, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(field(text, "bugs"), None);
    }
}
