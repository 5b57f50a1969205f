//! How requests reach the API server: kube's own stack, but for how long it keeps a connection that nobody uses.
//!
//! kube's keeps it for 90 s, and so do API servers. Whoever asks again after exactly that long writes into a connection
//! that the other side is just closing, and is told "connection closed before message completed": whether a write was
//! done, nobody knows then. kube has no setting for it, so that its layers are put together here, without those that log
//! each request, and without proxies, which this build does not speak to.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ClientBuilder, ConfigExt, retry::RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, ServiceExt, retry::RetryLayer, util::BoxService};

/// How long an unused connection is kept: less than API servers (90 s) and the load balancers before them do.
const IDLE: Duration = Duration::from_secs(30);

/// Why there is no connection to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig or the environment names one.
    #[error(
        "the proxy {0} cannot be used, as no proxy can: take proxy-url out of the kubeconfig, or unset HTTPS_PROXY"
    )]
    Proxy(Uri),
    /// Credentials or certificates that cannot be used.
    #[error(transparent)]
    Config(#[from] kube::Error),
}

/// An answer whose body is still to come.
pub type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// What sends a request.
pub type Stack = BoxService<Request<Body>, Answer, BoxError>;

/// Keeps connections of HTTP/1.1, one for each request under way, and unused ones for a little while.
pub fn pool() -> legacy::Builder {
    pool_that_keeps(IDLE)
}

fn pool_that_keeps(idle: Duration) -> legacy::Builder {
    let mut pool = legacy::Client::builder(TokioExecutor::new());
    pool.pool_idle_timeout(idle).pool_timer(TokioTimer::new());
    pool
}

/// What requests are sent with, to be layered further.
///
/// # Errors
/// As the variants say; nothing is sent yet.
pub fn stack(config: &Config) -> Result<ClientBuilder<Stack>, Error> {
    stack_over(config, &pool())
}

fn stack_over(config: &Config, pool: &legacy::Builder) -> Result<ClientBuilder<Stack>, Error> {
    if let Some(proxy) = &config.proxy_url {
        return Err(Error::Proxy(proxy.clone()));
    }
    let mut connector = HttpConnector::new();
    // the scheme is for the layer of TLS around it to see
    connector.enforce_http(false);
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_response(boxed)
        .map_err(BoxError::from)
        .service(pool.build(connector));
    Ok(ClientBuilder::new(service.boxed(), config.default_namespace.clone()))
}

fn boxed<B>(answer: Response<B>) -> Answer
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use axum::Router;
    use tokio::net::TcpListener;

    use super::*;

    /// How many connections two requests take, one after the other.
    async fn connections(idle: Duration) -> u32 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&accepted);
        let listener = axum::serve::ListenerExt::tap_io(listener, move |_| {
            count.fetch_add(1, Relaxed);
        });
        let server = tokio::spawn(axum::serve(listener, Router::new().fallback(async || "{}")).into_future());
        let config = Config::new(format!("http://{address}").parse().unwrap());
        let client = stack_over(&config, &pool_that_keeps(idle)).unwrap().build();
        for _ in 0..2 {
            let request = Request::get("/version").body(Vec::new()).unwrap();
            assert_eq!(client.request_text(request).await.unwrap(), "{}");
        }
        server.abort();
        accepted.load(Relaxed)
    }

    #[tokio::test]
    async fn a_connection_is_used_again_until_it_was_idle_for_too_long() {
        assert_eq!(connections(IDLE).await, 1);
        assert_eq!(connections(Duration::ZERO).await, 2);
    }

    #[test]
    fn a_proxy_is_refused() {
        let mut config = Config::new("https://127.0.0.1".parse().unwrap());
        config.proxy_url = Some("http://127.0.0.1:3128".parse().unwrap());
        let Err(error) = stack(&config) else { panic!("it has a stack") };
        assert!(error.to_string().starts_with("the proxy http://127.0.0.1:3128/ cannot be used"), "{error}");
    }
}
