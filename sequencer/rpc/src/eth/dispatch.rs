//! From the bytes of a request to the bytes of its answer, the same for HTTP and WebSocket.

use super::{budget::Budget, errors::EthError, metrics::EthMetrics, subscribe::HexIds};
use jsonrpsee::{
    core::server::helpers::prepare_error,
    server::{
        BatchResponseBuilder, BoundedSubscriptions, ConnectionId, MethodCallback, MethodResponse, MethodSink, Methods,
        SubscriptionState,
    },
    types::{ErrorCode, ErrorObject, ErrorObjectOwned, Id, Notification, Params, Request},
};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::{sync::Arc, time::Duration};
use switchyard_primitives::RollupId;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

/// What the requests of one server share.
pub(super) struct Dispatch {
    pub(super) rollup: RollupId,
    pub(super) methods: Methods,
    pub(super) metrics: Arc<EthMetrics>,
    pub(super) budget: Budget,
    pub(super) max_batch: usize,
    pub(super) max_response_bytes: usize,
    pub(super) request_timeout: Duration,
}

/// Where a WebSocket's subscriptions send, and how many it may have.
pub(super) struct Session {
    pub(super) id: ConnectionId,
    pub(super) sink: MethodSink,
    pub(super) subscriptions: BoundedSubscriptions,
}

/// An answer to send.
pub(super) struct Answer {
    /// The JSON.
    pub(super) text: String,
    /// Its share of the memory, to be given back once it is sent.
    pub(super) share: Option<OwnedSemaphorePermit>,
}

/// None for a notification, and for a subscription, which answers by itself.
type Response = Option<Box<RawValue>>;

impl Dispatch {
    /// Answers one message: a request, a notification or a batch. None where there is nothing to send.
    pub(super) async fn answer(&self, body: &[u8], session: Option<&Session>) -> Option<Answer> {
        let start = Instant::now();
        let failed = match tokio::time::timeout(self.request_timeout, self.message(body, session)).await {
            Ok(None) => return None,
            Ok(Some(json)) => match self.budget.try_take(json.get().len()) {
                Some(share) => return Some(Answer { text: text(json), share: Some(share) }),
                None => EthError::Limit("too many answers wait to be read: try again later".into()).into(),
            },
            Err(_) => error(TIMEOUT, "request timed out"),
        };
        self.count("failed", Some(failed.code()), start);
        let (id, _) = prepare_error(body);
        Some(Answer { text: text(MethodResponse::error(id, failed).into_json()), share: None })
    }

    async fn message(&self, body: &[u8], session: Option<&Session>) -> Response {
        if body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
            return self.batch(body, session).await;
        }
        let response = match serde_json::from_slice::<Request<'_>>(body) {
            Ok(request) => self.call(request, session).await,
            Err(_) if is_notification(body) => return None,
            Err(_) => self.malformed(body),
        };
        (!response.is_subscription()).then(|| response.into_json())
    }

    async fn batch(&self, body: &[u8], session: Option<&Session>) -> Response {
        let Ok(entries) = serde_json::from_slice::<Vec<&RawValue>>(body) else {
            return Some(self.malformed(body).into_json());
        };
        let refusal = match entries.len() {
            0 => Some("empty batch"),
            n if n > self.max_batch => Some("batch too large"),
            _ => None,
        };
        if let Some(text) = refusal {
            self.count("malformed", Some(ErrorCode::InvalidRequest.code()), Instant::now());
            let refused = error(ErrorCode::InvalidRequest.code(), text);
            return Some(MethodResponse::error(Id::Null, refused).into_json());
        }
        let mut batch = BatchResponseBuilder::new_with_limit(self.max_response_bytes);
        for entry in entries {
            let entry = entry.get().as_bytes();
            let response = match serde_json::from_slice::<Request<'_>>(entry) {
                Ok(request) if request.method == "eth_subscribe" => {
                    // Its answer would overtake the batch's.
                    MethodResponse::error(request.id, error(ErrorCode::InvalidRequest.code(), "subscribe in a batch"))
                }
                Ok(request) => self.call(request, session).await,
                Err(_) if is_notification(entry) => continue,
                Err(_) => self.malformed(entry),
            };
            if let Err(too_large) = batch.append(response) {
                return Some(too_large.into_json());
            }
        }
        // Notifications alone have no answer.
        (!batch.is_empty()).then(|| MethodResponse::from_batch(batch.finish()).into_json())
    }

    async fn call(&self, request: Request<'_>, session: Option<&Session>) -> MethodResponse {
        let start = Instant::now();
        let Some((name, callback)) = self.methods.method_with_name(&request.method) else {
            self.count("unknown", Some(ErrorCode::MethodNotFound.code()), start);
            return MethodResponse::error(request.id.clone(), unknown_method(&request.method));
        };
        let id = request.id.clone().into_owned();
        let params = Params::new(request.params.as_ref().map(|p| p.get()));
        let limit = self.max_response_bytes;
        let connection = session.map_or(ConnectionId(0), |s| s.id);
        let response = match (callback, session) {
            (MethodCallback::Async(run), _) => {
                run(id, params.into_owned(), connection, limit, request.extensions).await
            }
            (MethodCallback::Sync(run), _) => run(id, params, limit, request.extensions),
            (MethodCallback::Subscription(_) | MethodCallback::Unsubscription(_), None) => {
                MethodResponse::error(id, error(ErrorCode::MethodNotFound.code(), "notifications not supported"))
            }
            (MethodCallback::Unsubscription(run), Some(_)) => run(id, params, connection, limit, request.extensions),
            (MethodCallback::Subscription(run), Some(session)) => match session.subscriptions.acquire() {
                None => MethodResponse::error(id, too_many_subscriptions(session.subscriptions.max())),
                Some(subscription_permit) => {
                    let state = SubscriptionState { conn_id: session.id, id_provider: &HexIds, subscription_permit };
                    run(id, params, session.sink.clone(), state, request.extensions).await
                }
            },
        };
        self.count(name, response.as_error_code(), start);
        response
    }

    fn malformed<'a>(&self, body: &'a [u8]) -> MethodResponse {
        let code = match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => ErrorCode::InvalidRequest,
            Err(_) => ErrorCode::ParseError,
        };
        self.count("malformed", Some(code.code()), Instant::now());
        let (id, _): (Id<'a>, _) = prepare_error(body);
        MethodResponse::error(id, ErrorObject::from(code))
    }

    fn count(&self, method: &'static str, error: Option<i32>, start: Instant) {
        self.metrics.request(self.rollup, method, error, start.elapsed());
    }
}

/// geth's code for a request that took too long.
const TIMEOUT: i32 = -32002;

fn text(json: Box<RawValue>) -> String {
    Box::<str>::from(json).into_string()
}

fn error(code: i32, text: impl Into<String>) -> ErrorObjectOwned {
    ErrorObject::owned(code, text, None::<()>)
}

fn unknown_method(name: &str) -> ErrorObjectOwned {
    // The name comes from outside: enough of it to recognise it.
    let name: String = name.chars().take(64).collect();
    error(ErrorCode::MethodNotFound.code(), format!("the method {name} does not exist/is not available"))
}

fn too_many_subscriptions(max: u32) -> ErrorObjectOwned {
    EthError::Limit(format!("too many subscriptions on this connection: at most {max}")).into()
}

fn is_notification(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Id {
        id: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Notification<'_, Option<&RawValue>>>(body).is_ok()
        && serde_json::from_slice::<Id>(body).is_ok_and(|message| message.id.is_none())
}
