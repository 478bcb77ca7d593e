//! The machine and the process, as the system tells of them.

use std::sync::OnceLock;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

use crate::report::Machine;

/// The machine that this process runs on, as it was when that was first asked: to ask takes a dozen files of the
/// system, and each run asks several times.
pub(crate) fn this_machine() -> Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(ask).clone()
}

fn ask() -> Machine {
    let mut system = System::new();
    system.refresh_memory();
    let allowed = system.cgroup_limits().map(|limits| limits.total_memory);
    let memory_bytes = allowed
        .filter(|&bytes| bytes > 0)
        .map_or(system.total_memory(), |bytes| {
            bytes.min(system.total_memory())
        });
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes,
        system: std::env::consts::OS.into(),
        architecture: std::env::consts::ARCH.into(),
    }
}

/// Asks how much memory this process uses.
pub(crate) struct ProcessMemory {
    system: System,
    pid: Option<Pid>,
}

impl ProcessMemory {
    pub(crate) fn new() -> Self {
        Self {
            system: System::new(),
            pid: get_current_pid().ok(),
        }
    }

    /// Bytes of memory that are resident now; 0 where the system does not tell.
    pub(crate) fn now(&mut self) -> u64 {
        let Some(pid) = self.pid else { return 0 };
        let only_memory = ProcessRefreshKind::nothing().with_memory();
        let this = ProcessesToUpdate::Some(&[pid]);
        self.system
            .refresh_processes_specifics(this, false, only_memory);
        self.system.process(pid).map_or(0, |p| p.memory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_of_this_machine() {
        let machine = this_machine();
        let used = ProcessMemory::new().now();
        assert!(machine.cores >= 1);
        assert!(used > 1_000_000 && used < machine.memory_bytes, "{used}");
    }
}
