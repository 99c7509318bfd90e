//! The listener: HTTP and WebSocket on one port, with bounds on everything that a client can hold.

use super::{
    EthLimits,
    budget::held,
    dispatch::Dispatch,
    io::WriteTimeout,
    metrics::{Connected, EthMetrics},
    ws,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderMap, HeaderValue},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonrpsee::server::ConnectionId;
use parking_lot::Mutex;
use std::{convert::Infallible, sync::Arc, time::Duration};
use switchyard_primitives::RollupId;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;

/// A connection that sends no request for this long is closed. Longer than clients keep idle connections.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// A request's body must arrive within this time.
const BODY_MAX: Duration = Duration::from_secs(30);
/// A client must take some of its answer within this time.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// What a stopping server waits for requests at work.
const STOP_MAX: Duration = Duration::from_secs(5);
/// The listener rests this long when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections of one server share.
pub(super) struct Server {
    pub(super) rollup: RollupId,
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) metrics: Arc<EthMetrics>,
    pub(super) limits: EthLimits,
    pub(super) stop: CancellationToken,
}

/// Accepts connections until the server is stopped, then gives those at work some time to end.
pub(super) async fn run(server: Arc<Server>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut id = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = server.stop.cancelled() => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a JSON-RPC connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if connections.len() >= server.limits.max_connections {
            server.metrics.refuse(server.rollup);
            continue;
        }
        id += 1;
        let connected = server.metrics.connected(server.rollup);
        connections.spawn(connection(server.clone(), socket, ConnectionId(id), connected));
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(STOP_MAX, ended).await;
}

async fn connection(server: Arc<Server>, socket: TcpStream, id: ConnectionId, _connected: Connected) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "JSON-RPC connection");
        return;
    }
    let io = TokioIo::new(WriteTimeout::new(socket, WRITE_STALL_MAX));
    let upgrade = Mutex::new(None);
    let service = service_fn(|request| respond(&server, request, &upgrade));
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .max_buf_size(64 << 10)
        .serve_connection(io, service)
        .with_upgrades();
    let mut http = std::pin::pin!(http);
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = server.stop.cancelled() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "JSON-RPC connection");
        return;
    }
    let Some(upgrade) = upgrade.lock().take() else { return };
    match upgrade.await {
        Ok(upgraded) => ws::serve(upgraded, id, server.dispatch.clone(), &server.limits, server.stop.clone()).await,
        Err(error) => tracing::debug!(%error, "WebSocket upgrade"),
    }
}

type Reply = Response<Full<Bytes>>;

async fn respond(
    server: &Server,
    request: Request<Incoming>,
    upgrade: &Mutex<Option<OnUpgrade>>,
) -> Result<Reply, Infallible> {
    let mut reply = match *request.method() {
        Method::POST => post(server, request).await,
        Method::OPTIONS => preflight(request.headers()),
        Method::GET if request.headers().contains_key(header::UPGRADE) => handshake(request, upgrade),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "JSON-RPC takes POST requests and WebSocket upgrades"),
    };
    // Wallets in browsers call from any page; there is nothing here that a page could abuse a visitor's rights for.
    reply.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(reply)
}

/// Tells a browser that any page may call.
fn preflight(asked: &HeaderMap) -> Reply {
    let mut reply = status(StatusCode::NO_CONTENT);
    let headers = reply.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
    let allowed = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.unwrap_or(HeaderValue::from_static("content-type")));
    headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    reply
}

async fn post(server: &Server, request: Request<Incoming>) -> Reply {
    if !is_json(request.headers()) {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content type must be application/json");
    }
    let limit = server.limits.max_request_bytes as usize;
    let expected = request.body().size_hint().upper().map_or(limit, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if expected > limit {
        return too_large(limit);
    }
    let Some(share) = server.dispatch.budget.try_take(expected) else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once: try again later");
    };
    let body = match timeout(BODY_MAX, Limited::new(request.into_body(), limit).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => return too_large(limit),
        Ok(Err(_)) => return text(StatusCode::BAD_REQUEST, "the body is incomplete"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    let answer = server.dispatch.answer(&body, None).await;
    drop((body, share));
    let Some(answer) = answer else { return status(StatusCode::NO_CONTENT) };
    let bytes = match answer.share {
        Some(share) => held(answer.text, share),
        None => answer.text.into(),
    };
    let mut reply = Response::new(Full::new(bytes));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// `application/json`, or geth's other names for it, with or without a charset.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/json-rpc", "application/jsonrequest"]
        .iter()
        .any(|known| media_type.eq_ignore_ascii_case(known))
}

/// Agrees to a WebSocket (RFC 6455, section 4.2).
fn handshake(mut request: Request<Incoming>, upgrade: &Mutex<Option<OnUpgrade>>) -> Reply {
    let headers = request.headers();
    let is = |name: &str, value: &str| {
        headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case(value))
    };
    let (true, true, Some(key)) =
        (is("upgrade", "websocket"), is("sec-websocket-version", "13"), headers.get(header::SEC_WEBSOCKET_KEY))
    else {
        return text(StatusCode::BAD_REQUEST, "not a WebSocket (version 13) handshake");
    };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return text(StatusCode::BAD_REQUEST, "bad Sec-WebSocket-Key");
    };
    *upgrade.lock() = Some(hyper::upgrade::on(&mut request));
    let mut reply = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    reply
}

fn too_large(limit: usize) -> Reply {
    text(StatusCode::PAYLOAD_TOO_LARGE, &format!("content length too large: at most {limit} bytes are taken"))
}

fn status(code: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = code;
    reply
}

fn text(code: StatusCode, message: &str) -> Reply {
    let mut reply = status(code);
    *reply.body_mut() = Full::new(Bytes::from(format!("{message}\n")));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}
