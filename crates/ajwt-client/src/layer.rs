use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::{BoxError, Layer, Service};

use crate::{OriginSigner, origin::Target};

/// Signs each request that passes, for clients that are tower services: those of hyper and tonic.
///
/// A retry layer goes around it, so that each attempt has a token of its own. Redirects are not
/// followed by these clients; a layer that follows them goes around it too.
///
/// A request that may not be signed is not sent: the error is a
/// [`SigningError`](crate::SigningError). A 401 of a server whose clock is apart from ours, or its
/// `UNAUTHENTICATED` in gRPC, is a [`ClockSkewError`](crate::ClockSkewError); with clock correction
/// the next request is dated by that clock, for this one's body is gone. Both are found by
/// `downcast_ref`; tonic makes a `Status` of either, `Unknown`, whose `source` it is.
///
/// The origin that is checked is the one that the request's URI states, and not where the channel within leads:
/// tonic's puts the scheme and authority of its `Endpoint` in their place once the request is signed. A token for
/// `https://orders.example` would go to another host, or plainly, if the endpoint says so. Hence make the
/// `Endpoint` and the origin of the client (`GreeterClient::with_origin`) of one value, the one that the
/// [`OriginSigner`] has. hyper's client goes where the URI says.
///
/// A token grows old in what queues requests within this layer, as tonic's channel does while it connects, or at the
/// limits of its `Endpoint`. So limits go around the layer, and a timeout too that is well below the tolerance of
/// servers, which is 20 s.
///
/// ```
/// use ajwt_client::{OriginSigner, RequestSigner, SigningLayer};
/// # use ajwt_core::PrivateKey;
/// use tower::Layer as _;
///
/// # fn example<C>(http_client: C) -> Result<(), Box<dyn std::error::Error>> {
/// # let key = PrivateKey::generate_ed25519()?;
/// let signer = OriginSigner::new(RequestSigner::new("billing", key)?, ["https://orders.example"])?;
/// let client = SigningLayer::new(signer).layer(http_client);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SigningLayer(Arc<OriginSigner>);

impl SigningLayer {
    /// Signs as this does.
    #[must_use]
    pub fn new(signer: OriginSigner) -> Self {
        Self(Arc::new(signer))
    }
}

impl<S> Layer<S> for SigningLayer {
    type Service = SigningService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SigningService { inner, signer: Arc::clone(&self.0) }
    }
}

/// The service that [`SigningLayer`] makes.
#[derive(Clone, Debug)]
pub struct SigningService<S> {
    inner: S,
    signer: Arc<OriginSigner>,
}

impl<S, B, R> Service<Request<B>> for SigningService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The inner service that is ready is this one; its clone need not be.
        let ready = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, ready);
        let signer = Arc::clone(&self.signer);
        Box::pin(async move {
            let uri = request.uri().clone();
            let attempt = signer.sign(Target::of_uri(&uri), request.headers_mut()).await?;
            let response = inner.call(request).await.map_err(Into::into)?;
            let skew = attempt
                .and_then(|attempt| signer.clock_skew(&attempt, response.status(), response.headers()));
            skew.map_or(Ok(response), |skew| Err(skew.into()))
        })
    }
}
