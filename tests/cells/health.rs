//! Silk's health check: what its CNI plugin asks, and a port that is taken.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{BOUND, Lab, Namespace, Plan, Result, Snapshot, ensure};

const PORT: u16 = 23954;
const LINE: &str = "health_check = \"127.0.0.1:23954\"";

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, lines, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk]).cold().vtep_lines(lines);
        Case::new(format!("health::{name}"), plan, body)
    };
    vec![
        case("tells_the_network_as_silk_does", LINE, tells_the_network),
        case("nobody_listens_unless_configured", "", nobody_listens),
        case("a_port_that_is_taken_is_refused", LINE, taken_port),
    ]
}

fn tells_the_network(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let daemon = lab.cells[0].daemon()?;
    // Twice: the port is free again at once, though connections were closed a moment ago.
    for _ in 0..2 {
        daemon.start()?;
        let answer = ask(&host)?;
        let body = r#"{"overlay_subnet":"10.255.108.0/24","mtu":1450}"#;
        ensure!(
            answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n")
                && answer.ends_with(&format!("\r\n\r\n{body}")),
            "{answer}"
        );
        // Who hangs on the line holds up neither the others nor the end.
        let _hanging = host.run(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?))?;
        ask(&host)?;
        daemon.terminate()?;
    }
    Ok(())
}

fn nobody_listens(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let daemon = lab.cells[0].daemon()?;
    daemon.start()?;
    ensure!(ask(&host).is_err(), "somebody listens");
    daemon.terminate()
}

fn taken_port(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let _taken = host.run(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?))?;
    let before = Snapshot::of(&host)?;
    let daemon = lab.cells[0].daemon()?;
    let ended = daemon.run_to_its_end(&[])?;
    let said = format!(
        "silk-vtep: answer health checks at 127.0.0.1:{PORT}: EADDRINUSE (process {} (",
        std::process::id()
    );
    ensure!(
        ended.status.code() == Some(1) && ended.stderr.starts_with(&said),
        "{}\nand not {said}",
        ended.stderr
    );
    before.same_as(&Snapshot::of(&host)?)
}

fn ask(host: &Namespace) -> Result<String> {
    let mut stream = host.run(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?))?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:23954\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
