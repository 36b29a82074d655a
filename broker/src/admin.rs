//! The admin port: `GET /healthz` and `GET /metrics` over HTTP/1.1, on a thread of its own.
//!
//! Two fixed paths and no bodies to read need no HTTP library. A request is read up to a fixed size
//! and time, answered, and the connection closed.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::metrics;
use crate::node::Node;

const REQUEST_SIZE_MAX: usize = 8 * 1024;
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers admin requests until the process ends.
pub(crate) fn serve(listener: &TcpListener, node: &Arc<Node>) {
    for stream in listener.incoming() {
        // A client that goes away or is slow costs this request only.
        let _ = stream.and_then(|stream| answer(stream, node));
    }
}

fn answer(mut stream: TcpStream, node: &Node) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = read_head(&mut stream)?;
    let (status, kind, body) = respond(&request, node);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// Reads up to the blank line that ends the head, the size limit or the end of the stream.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while head.len() < REQUEST_SIZE_MAX && !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(&chunk[..count]);
    }
    Ok(head)
}

fn respond(request: &[u8], node: &Node) -> (&'static str, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method != b"GET" {
        return ("405 Method Not Allowed", TEXT, "only GET is served here\n".into());
    }
    match path {
        b"/healthz" if node.healthy() => ("200 OK", TEXT, "ok\n".into()),
        b"/healthz" => ("503 Service Unavailable", TEXT, "starting, stopping or failed\n".into()),
        b"/metrics" => (
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::render(&node.metrics, node.store_metrics()),
        ),
        _ => ("404 Not Found", TEXT, "served here: /healthz and /metrics\n".into()),
    }
}
