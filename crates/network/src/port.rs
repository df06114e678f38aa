//! The physical network ports of a node, read from sysfs.

use std::fs;
use std::path::{Path, PathBuf};

/// A physical network port, as sysfs describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The kernel's name, such as `eth0`.
    pub name: String,
    /// Hardware address (MAC) of the port.
    pub mac: [u8; 6],
    /// Whether the port is administratively up (`IFF_UP`), set by this program or another.
    pub up: bool,
    /// Whether the cable carries a signal. `false` for a port that is not up: the kernel does not know then.
    pub carrier: bool,
    /// Speed in Mbit/s; `None` without a signal, or if the driver does not know it.
    pub speed: Option<u32>,
    pub driver: Option<String>,
}

/// The sysfs directory in which the kernel lists network interfaces.
#[derive(Debug, Clone)]
pub struct Ports {
    class: PathBuf,
}

impl Default for Ports {
    fn default() -> Self {
        Self::with_class_folder(Path::new("/sys/class/net"))
    }
}

impl Ports {
    /// Reads below `class` instead of `/sys/class/net`, for tests.
    pub fn with_class_folder(class: &Path) -> Self {
        Self { class: class.into() }
    }

    /// All physical ports, sorted by name. Bridges, bonds, tunnels and the loopback have no `device` entry and are left
    /// out.
    pub fn list(&self) -> Vec<Port> {
        let mut ports: Vec<Port> = fs::read_dir(&self.class)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("device").exists())
            .filter_map(|entry| self.port(entry.file_name().to_str()?))
            .collect();
        ports.sort_by_key(|port| natural_sort_key(&port.name));
        ports
    }

    fn port(&self, name: &str) -> Option<Port> {
        let folder = self.class.join(name);
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned());
        let flags = u32::from_str_radix(read("flags")?.trim_start_matches("0x"), 16).ok()?;
        let driver = fs::read_link(folder.join("device/driver")).ok();
        Some(Port {
            name: name.into(),
            mac: parse_mac(&read("address")?)?,
            up: flags & 1 != 0,
            // Reading `carrier` fails while the port is down.
            carrier: read("carrier").as_deref() == Some("1"),
            speed: read("speed").and_then(|text| text.parse().ok()).filter(|speed| (1..u32::MAX).contains(speed)),
            driver: driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned())),
        })
    }
}

/// A sort key by which `eth2` comes before `eth10`.
fn natural_sort_key(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.into(), name[stem.len()..].parse().unwrap_or(0))
}

/// Parses a MAC address such as `52:54:00:12:34:56`.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(class: &Path, name: &str, files: &[(&str, &str)], physical: bool) {
        let folder = class.join(name);
        fs::create_dir_all(&folder).expect("a port");
        for (file, text) in files {
            fs::write(folder.join(file), format!("{text}\n")).expect("a file");
        }
        if physical {
            fs::create_dir_all(folder.join("device")).expect("a device");
            std::os::unix::fs::symlink("/drivers/igb", folder.join("device/driver")).expect("a driver");
        }
    }

    #[test]
    fn only_interfaces_with_a_device_are_listed_and_eth2_comes_before_eth10() {
        let dir = tempfile::tempdir().expect("a directory");
        let down = [("flags", "0x1002"), ("address", "52:54:00:12:34:56")];
        let up = [("flags", "0x1003"), ("address", "52:54:00:12:34:57"), ("carrier", "1"), ("speed", "10000")];
        add(dir.path(), "eth10", &down, true);
        add(dir.path(), "eth2", &up, true);
        add(dir.path(), "lo", &[("flags", "0x9"), ("address", "00:00:00:00:00:00")], false);
        add(dir.path(), "br0", &up, false);
        let ports = Ports::with_class_folder(dir.path()).list();
        assert_eq!(ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["eth2", "eth10"]);
        assert_eq!(ports[0].mac, [0x52, 0x54, 0, 0x12, 0x34, 0x57]);
        assert_eq!((ports[0].up, ports[0].carrier, ports[0].speed), (true, true, Some(10000)));
        assert_eq!((ports[1].up, ports[1].carrier, ports[1].speed), (false, false, None));
        assert_eq!(ports[0].driver.as_deref(), Some("igb"));
    }

    #[test]
    fn a_speed_of_minus_one_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = [("flags", "0x1003"), ("address", "52:54:00:12:34:57"), ("carrier", "1"), ("speed", "-1")];
        add(dir.path(), "eth0", &files, true);
        assert_eq!(Ports::with_class_folder(dir.path()).list()[0].speed, None);
    }
}
