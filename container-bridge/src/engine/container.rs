//! What a container is to be: the part of a sandbox's walls that the engine builds. Pure.

use std::{collections::HashMap, path::Path};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountType, ResourcesUlimits,
};
use rustix::process::{Resource, getrlimit};

use super::{EngineConfig, Image, Kind, PROBED_RUNTIME, now};
use crate::{
    backend::{SandboxId, SandboxSpec},
    cgroup::INIT_PIDS,
    init::{HOST_DIRS, HOST_ETC, PROC_MASKED, contained::CONTAINED},
    kit::Kit,
    limits::Limits,
    owned::{DISK_SIXTEENTHS, KIT_DIR, hash, uid},
};

/// The lock file of the gateway that made it.
pub(super) const LABEL_INSTANCE: &str = "atoll.instance";
/// When its lifetime is over, in seconds since 1970.
pub(super) const LABEL_EXPIRES: &str = "atoll.expires";
const LABEL_ID: &str = "atoll.sandbox";
const LABEL_TENANT: &str = "atoll.owner";
const LABEL_USER: &str = "atoll.user";
/// What a file takes at least; bounds the count of files, each of which costs kernel memory.
const BYTES_PER_INODE: u64 = 4096;
/// Open files of the init, which serves many operations, if the workload may have fewer.
const INIT_OPEN_FILES: u64 = 4096;
/// Processes of one user, if the sandbox may have fewer: the bound that counts is the cgroup's.
const USER_PROCESSES: u64 = 4096;
/// Readable in `/proc`, never writable: the engines' own default, which a list of ours replaces.
const PROC_READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// Masked besides [`PROC_MASKED`]: the engines' own defaults.
const MASKED: &[&str] = &["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/scsi", "/sys"];

/// What reapers and people read.
pub(super) struct Labels(HashMap<String, String>);

impl Labels {
    pub(super) fn new(id: &SandboxId, spec: &SandboxSpec, instance: &Path) -> Self {
        let expires = now().as_secs() + spec.limits.lifetime_ms.div_ceil(1000);
        let mut labels = HashMap::from([
            (LABEL_ID.to_owned(), id.as_str().to_owned()),
            (LABEL_INSTANCE.to_owned(), instance.display().to_string()),
            (LABEL_EXPIRES.to_owned(), expires.to_string()),
        ]);
        if let Some(owner) = &spec.owner {
            labels.insert(LABEL_TENANT.to_owned(), owner.tenant.clone());
            // A user's id may be an address or a name of a person; labels are for everybody on the machine.
            labels.insert(LABEL_USER.to_owned(), hash(&[owner.user.as_bytes()]));
        }
        Self(labels)
    }
}

/// All that a container is made from.
pub(super) struct Plan<'a> {
    pub(super) config: &'a EngineConfig,
    pub(super) kit: &'a Kit,
    pub(super) id: &'a SandboxId,
    pub(super) limits: &'a Limits,
    pub(super) image: &'a str,
    pub(super) labels: Labels,
    pub(super) runtime: Option<String>,
}

impl Plan<'_> {
    /// The body of the create call.
    pub(super) fn body(&self) -> ContainerCreateBody {
        let uid = uid(self.id, self.config.uid_base, self.config.uids);
        let mut command = self.kit.command(KIT_DIR);
        command.extend(self.config.args.iter().cloned());
        command.push(CONTAINED.to_owned());
        ContainerCreateBody {
            hostname: Some("sandbox".to_owned()),
            user: Some(format!("{uid}:{uid}")),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            // The end of the attach stream is the end of standard input: the init's lifeline.
            stdin_once: Some(true),
            tty: Some(false),
            // The init has nothing to be asked for: an engine that wants to end it does so at once.
            stop_signal: Some("SIGKILL".to_owned()),
            stop_timeout: Some(0),
            image: Some(self.image.to_owned()),
            entrypoint: Some(command),
            cmd: Some(Vec::new()),
            env: Some(Vec::new()),
            working_dir: Some("/".to_owned()),
            network_disabled: Some(true),
            labels: Some(self.labels.0.clone()),
            host_config: Some(self.host_config(uid)),
            ..Default::default()
        }
    }

    fn host_config(&self, uid: u32) -> HostConfig {
        let memory = i64::try_from(self.limits.memory_bytes).unwrap_or(i64::MAX);
        // gVisor's own threads count as processes of the container, and it hangs where they cannot be made. Inside,
        // the number of processes is then bounded by memory alone.
        let gvisor = self.runtime.as_deref() == Some(PROBED_RUNTIME);
        let pids = (!gvisor).then(|| i64::from(self.limits.pids + INIT_PIDS));
        let proc = |names: &[&str]| names.iter().map(|name| format!("/proc/{name}")).collect::<Vec<_>>();
        let masked = [proc(PROC_MASKED), MASKED.iter().map(|path| (*path).to_owned()).collect()].concat();
        let mut security = vec!["no-new-privileges".to_owned()];
        if self.config.kind == Kind::Podman {
            security.push(format!("mask={}", masked.join(":"))); // the field of that name is Docker's alone
        }
        HostConfig {
            network_mode: Some("none".to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(security),
            privileged: Some(false),
            readonly_rootfs: Some(true),
            tmpfs: Some(self.tmpfs(uid)),
            mounts: Some(self.mounts()),
            memory: Some(memory),
            memory_swap: Some(memory),
            nano_cpus: Some(i64::from(self.limits.cpu_millis) * 1_000_000),
            pids_limit: pids,
            ulimits: Some(self.ulimits()),
            auto_remove: Some(true),
            runtime: self.runtime.clone(),
            ipc_mode: Some("none".to_owned()), // without: the engine mounts a /dev/shm of its own
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            masked_paths: Some(masked),
            readonly_paths: Some(proc(PROC_READ_ONLY)),
            // Else the engine keeps every byte of the attach stream in a log file.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..Default::default()
        }
    }

    fn tmpfs(&self, uid: u32) -> HashMap<String, String> {
        let place = |(path, sixteenths, mode): &(&str, u64, &str)| {
            let bytes = self.limits.disk_bytes / 16 * sixteenths;
            let mut options = format!("rw,exec,nosuid,nodev,size={bytes}");
            match self.config.kind {
                Kind::Docker => {
                    let inodes = (bytes / BYTES_PER_INODE).max(64);
                    options += &format!(",nr_inodes={inodes},mode={mode},uid={uid},gid={uid}");
                }
                // Podman knows no count, and "U" for the owner. Small files cost
                // memory, which is bounded.
                Kind::Podman => options += ",notmpcopyup,U",
            }
            ((*path).to_owned(), options)
        };
        DISK_SIXTEENTHS.iter().map(place).collect()
    }

    fn mounts(&self) -> Vec<Mount> {
        let mut mounts: Vec<Mount> =
            self.kit.files().map(|(path, name)| bind(path, &format!("{KIT_DIR}/{name}"))).collect();
        if self.config.image == Image::Host {
            let is_real = |path: &Path| path.symlink_metadata().is_ok_and(|found| !found.is_symlink());
            let dirs =
                HOST_DIRS.iter().map(|name| format!("/{name}")).filter(|path| is_real(Path::new(path)));
            let etc = HOST_ETC.iter().map(|name| format!("/etc/{name}"));
            let etc = etc.filter(|path| Path::new(path).exists());
            mounts.extend(dirs.chain(etc).map(|path| {
                let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone().into());
                bind(&real, &path)
            }));
        }
        mounts
    }

    /// Said explicitly, because an engine's own defaults may be above what it can set.
    fn ulimits(&self) -> Vec<ResourcesUlimits> {
        let limit = |name: &str, resource, wanted: u64| {
            let most = getrlimit(resource).maximum.map_or(wanted, |hard| hard.min(wanted));
            let value = i64::try_from(most).unwrap_or(i64::MAX);
            ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
        };
        vec![
            limit("nofile", Resource::Nofile, INIT_OPEN_FILES.max(self.limits.open_files.into())),
            limit("nproc", Resource::Nproc, USER_PROCESSES.max((self.limits.pids + INIT_PIDS).into())),
            limit("core", Resource::Core, 0),
        ]
    }
}

/// Read-only, and without what may be mounted below: the engines cannot make that read-only.
fn bind(from: &Path, to: &str) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(from.display().to_string()),
        target: Some(to.to_owned()),
        read_only: Some(true),
        bind_options: Some(MountBindOptions { non_recursive: Some(true), ..Default::default() }),
        ..Default::default()
    }
}
