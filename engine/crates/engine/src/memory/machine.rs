//! How much memory there is, and how much of it this process has.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Part of the machine's memory, or of its cgroup's, that the engine takes unless it is told: control, services and the
/// kernel's socket buffers live there too.
const PART: usize = 2;
/// When nothing can be found out.
const UNKNOWN: usize = 1 << 30;

/// The limit unless one is set: half of the least of the machine's memory and the limits of its cgroups.
#[must_use]
pub fn default_limit() -> usize {
    let machine = read("/proc/meminfo").and_then(|text| kilobytes(&text, "MemTotal:"));
    let groups = read("/proc/self/cgroup").map(|text| group_files(&text)).unwrap_or_default();
    let limits = groups.iter().filter_map(|path| read(path)?.trim().parse().ok());
    limits.chain(machine).min().map_or(UNKNOWN, |all| all / PART)
}

/// Resident bytes of this process; 0 when the system does not tell.
#[must_use]
pub fn resident() -> usize {
    let pages = |text: String| text.split(' ').nth(1)?.parse::<usize>().ok();
    read("/proc/self/statm").and_then(pages).unwrap_or(0) * rustix::param::page_size()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The value of a line such as `MemTotal:    1234 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// The files that may hold a limit of a group in this `/proc/self/cgroup`, its parents included. ("max" is no number, and the
/// number that version 1 has for it is above any machine.)
fn group_files(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            all if all.split(',').any(|each| each == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the group may be mounted as the root: then only the last one exists.
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_groups_are_looked_for_up_to_the_root() {
        let names = |text: &str| group_files(text).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            names("0::/system.slice/sdlb.service\n"),
            [
                "/sys/fs/cgroup/system.slice/sdlb.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(names("5:cpu:/a\n4:hugetlb,memory:/\nodd"), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    }

    #[test]
    fn this_process_has_memory_and_so_has_the_machine() {
        assert_eq!(kilobytes("MemFree: 1 kB\nMemTotal:\t   12 kB\n", "MemTotal:"), Some(12 << 10));
        assert!(resident() > 0 && default_limit() > resident());
    }
}
