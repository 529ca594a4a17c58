//! The status page over HTTP/1.1, by hyper: GET and HEAD of `/`, keep-alive, limits on the request.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::copy::{IntoNothing, copy};
use super::{LINGER, StatusPage};

/// Most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a client may take to send a request's head, idle time between requests included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

type Body = BoxBody<Bytes, Infallible>;

/// Serves one connection until the client closes it, errs or idles too long.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, status: StatusPage) {
    let service = service_fn(|request| {
        let response = respond(&request, &status);
        async move { Ok::<_, Infallible>(response) }
    });
    // An error is the client's: hyper has answered it as far as it could.
    let _ = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(&mut stream), service)
        .await;
    // RFC 9112 section 9.6: what the client still sends must not reset the connection under the answer.
    if stream.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, copy(IntoNothing(&mut stream))).await;
    }
}

fn respond(request: &Request<Incoming>, status: &StatusPage) -> Response<Body> {
    if request.uri().path() != "/" {
        return text(StatusCode::NOT_FOUND, "There is only / here.\n");
    }
    match *request.method() {
        // For HEAD, hyper sends the same head and leaves the body out.
        Method::GET | Method::HEAD => page(status()),
        _ => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are served.\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    }
}

fn page(html: String) -> Response<Body> {
    let mut response = Response::new(Full::from(html).boxed());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::from(body).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn exchange(request: &str) -> String {
        let (near, mut far) = duplex(64 * 1024);
        let status: StatusPage = Rc::new(|| "<p>fine</p>".to_owned());
        let client = async {
            far.write_all(request.as_bytes()).await.unwrap();
            far.shutdown().await.unwrap();
            let mut answer = String::new();
            far.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::join!(serve(near, status), client).1
    }

    #[tokio::test]
    async fn get_returns_the_page_with_its_length() {
        let answer = exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-length: 11\r\n") && answer.ends_with("\r\n\r\n<p>fine</p>"), "{answer}");
    }

    #[tokio::test]
    async fn head_returns_the_same_head_without_the_page() {
        let answer = exchange("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.contains("content-length: 11\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_serves_several_requests() {
        let answer = exchange(&"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3)).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    }

    #[tokio::test]
    async fn what_is_not_served_is_refused_with_the_right_status() {
        let answer = exchange("GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let answer = exchange("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
        let answer = exchange("nonsense\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test]
    async fn a_request_head_beyond_the_limit_is_refused() {
        let request = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD_BYTES));
        let answer = exchange(&request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}
