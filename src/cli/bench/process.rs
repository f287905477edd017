//! What a process costs, as Linux counts it; nothing where there is no `/proc` or it is not ours to read.

use std::fs;
use std::net::IpAddr;

/// `getconf CLK_TCK`: ticks a second in `/proc/PID/stat`, 100 on every Linux that is in use.
const TICKS_PER_S: u64 = 100;

/// CPU time of a process so far, user and system, all threads.
pub(super) fn cpu_us(pid: u32) -> Option<u64> {
    parse_cpu_us(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// How many processes of the whole machine wanted to run, on average over the last minute.
pub(super) fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// The most memory the process ever held.
pub(super) fn peak_rss_kib(pid: u32) -> Option<u64> {
    status_kib(pid, "VmHWM:")
}

/// The memory the process holds.
pub(super) fn rss_kib(pid: u32) -> Option<u64> {
    status_kib(pid, "VmRSS:")
}

/// The process of this machine that listens on a loopback port: the broker, if it is here and ours to see.
pub(super) fn listener(host: &str, port: u16) -> Option<u32> {
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_here {
        return None;
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let sockets: Vec<String> = tables.iter().flat_map(|table| listening(table, port)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| holds(*pid, &sockets))
}

fn parse_cpu_us(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, so fields are counted from its end: utime is the 14th of all.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) * (1_000_000 / TICKS_PER_S))
}

fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a file descriptor of a socket that listens on this port links to.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = lines.filter(|fields| {
        let local = fields.get(1).and_then(|address| address.rsplit_once(':'));
        let is_port = local.is_some_and(|(_, text)| u16::from_str_radix(text, 16) == Ok(port));
        is_port && fields.get(3) == Some(&LISTEN)
    });
    ours.filter_map(|fields| Some(format!("socket:[{}]", fields.get(9)?))).collect()
}

fn holds(pid: u32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut links = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 10 0 0 0 250 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(parse_cpu_us(stat), Some(3_000_000));
        assert_eq!(parse_cpu_us("7 (a) S 1"), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1628 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 0100007F:1628 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 00000000000000000000000000000000:1629 0:0 0A 00000000:00000000 00:00000000 00000000     0        0 333 1";
        assert_eq!(listening(table, 0x1628), ["socket:[111]"]);
        assert_eq!(listening(table, 0x1629), ["socket:[333]"]);
    }

    #[test]
    fn a_process_sees_itself() {
        let pid = std::process::id();
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert_eq!(listener("127.0.0.1", socket.local_addr().unwrap().port()), Some(pid));
        assert_eq!(listener("broker.example.com", 5672), None);
        assert!(cpu_us(pid).is_some() && rss_kib(pid) > Some(0) && peak_rss_kib(pid) >= rss_kib(pid));
    }
}
