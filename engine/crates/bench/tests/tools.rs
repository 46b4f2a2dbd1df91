//! The tools against plain sockets: what they count is what was answered.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    thread,
};

use bytes::Bytes;

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// A tool that listens; it ends with the test.
struct Tool(Child);

impl Tool {
    fn start(path: &str, words: &[&str]) -> (Self, String) {
        let mut child = Command::new(path).arg("127.0.0.1:0").args(words).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line.trim().to_owned())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers each read with `answer`.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap(), answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &str) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|size| size > 0) {
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn pace(address: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pace")).args([address, "bench.test", "10", "4", "500", "1"]).output().unwrap()
}

#[test]
fn what_was_due_after_the_warm_up_is_counted_through_the_floor() {
    let (_floor, address) = Tool::start(env!("CARGO_BIN_EXE_floor"), &[&server(GOOD)]);
    let done = pace(&address);
    let said = String::from_utf8(done.stdout).unwrap();
    let figures: Vec<f64> = said.trim().split(", ").map(|word| word.parse().unwrap()).collect();
    let [answered, p50, p99] = figures[..] else { panic!("said {said:?}") };
    assert_eq!(answered, 250.0);
    assert!(0.0 < p50 && p50 <= p99, "said {said:?}");
}

#[test]
fn another_answer_than_200_ends_it() {
    let done = pace(&server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
    assert!(!done.status.success());
    assert_eq!(String::from_utf8(done.stderr).unwrap(), "pace: answered: http/1.1 503 service unavailable\n");
}

#[tokio::test]
async fn a_call_is_answered_with_its_message_and_a_status() {
    let (_echo, address) = Tool::start(env!("CARGO_BIN_EXE_echo"), &[]);
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://bench.test/bench.Echo/Unary").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), b"\0\0\0\0\x02hi"[..]);
    assert!(answer.data().await.is_none());
    assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}
