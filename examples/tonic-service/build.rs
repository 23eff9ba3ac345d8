//! Makes client and server of the service's description. With a `.proto` file, `tonic-prost-build`
//! does so; this way needs no protoc.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::Greeting")
            .output_type("crate::Greeting")
            .codec_path("tonic_prost::ProstCodec")
    };
    let greeter = Service::builder()
        .package("example")
        .name("Greeter")
        .method(method("greet", "Greet").build())
        .method(method("greet_often", "GreetOften").server_streaming().build())
        .build();
    Builder::new().compile(&[greeter]);
}
