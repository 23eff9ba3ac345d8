use ajwt_server::Answer;
use axum_core::{body::Body, response::Response};
use http::{HeaderName, HeaderValue, StatusCode};

/// The response that an answer describes.
pub(crate) fn of_answer(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(String::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        // An answer's headers can stand in HTTP.
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(String::from(value))) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}
