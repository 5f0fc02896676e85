//! Memory of a process tree, from `/proc`.

/// What a tree of processes holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Sum of resident pages, in KiB; pages shared between the processes count twice.
    pub(crate) resident_kib: u64,
    /// Sum of proportional shares, in KiB: shared pages are split between those who share them.
    pub(crate) proportional_kib: u64,
    /// Sum of pages that only one process holds, in KiB.
    pub(crate) private_kib: u64,
}

/// A process and everything it started.
pub(crate) fn members(root: u32) -> Vec<u32> {
    let parents = parents();
    let mut members = vec![root];
    let mut next = 0;
    while let Some(parent) = members.get(next).copied() {
        members.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    members
}

/// The memory of a process and everything it started.
pub(crate) fn tree(root: u32) -> Memory {
    members(root).into_iter().map(one).fold(Memory::default(), |sum, part| Memory {
        resident_kib: sum.resident_kib + part.resident_kib,
        proportional_kib: sum.proportional_kib + part.proportional_kib,
        private_kib: sum.private_kib + part.private_kib,
    })
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name is in parentheses and may hold anything; what follows the last one is regular.
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

fn one(pid: u32) -> Memory {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| -> u64 {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().split(' ').next()?.parse().ok())
            .unwrap_or(0)
    };
    Memory {
        resident_kib: field("Rss:"),
        proportional_kib: field("Pss:"),
        private_kib: field("Private_Clean:") + field("Private_Dirty:"),
    }
}
