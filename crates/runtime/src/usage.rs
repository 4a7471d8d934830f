use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// What this process has used so far. Lambda reports time and memory of a call, but not the CPU time behind it.
#[derive(Clone, Copy, Debug)]
pub struct ProcessUsage {
    cpu: Duration,
}

impl ProcessUsage {
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        ProcessUsage { cpu: Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()) }
    }

    /// CPU time of all threads since `earlier`, in milliseconds.
    pub fn cpu_millis_since(&self, earlier: &ProcessUsage) -> u64 {
        u64::try_from(self.cpu.saturating_sub(earlier.cpu).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The most resident memory that this process has had, in bytes; none where the system does not say it.
pub fn peak_memory() -> Option<u64> {
    peak_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Of proc_pid_status(5), whose unit is always kB.
fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_cpu_time_and_memory() {
        let before = ProcessUsage::now();
        let mut sum = 0u64;
        while ProcessUsage::now().cpu_millis_since(&before) < 20 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0);
        assert_eq!(peak_of("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_of("Name:\tx\n"), None);
    }
}
