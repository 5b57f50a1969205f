//! Ports for programs that must be told theirs before they bind it, or that come and go.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the ports that Linux gives to who asks for any, or who connects (from 32768 on): nobody is given one by chance while
/// it is not yet, or no longer, bound.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port that nobody listens on, and that this process is given once.
///
/// # Errors
/// If there is none.
pub fn free() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // test programs side by side begin at places of their own, mostly
    let begin = u16::try_from(std::process::id() * 61 % u32::from(COUNT)).unwrap_or_default();
    let mut error = io::ErrorKind::AddrInUse.into();
    for _ in 0..COUNT {
        let place = (u32::from(begin) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(place).unwrap_or_default();
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(taken) => error = taken,
        }
    }
    Err(error)
}
