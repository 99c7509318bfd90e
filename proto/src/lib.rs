//! The gRPC interfaces `switchyard.v1` and `switchyard.signer.v1`: messages, clients and servers generated from `proto/`, and the checked
//! conversions between them and the values of `switchyard-primitives`.

mod convert;

pub use convert::{ConvertError, ProvenSegment, fixed, hash, header, level, to_bytes};

/// Generated from `proto/switchyard/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::large_futures)]
pub mod v1 {
    tonic::include_proto!("switchyard.v1");

    /// The encoded `FileDescriptorSet` of the package, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("switchyard.v1");
}

/// Generated from `proto/switchyard/signer/v1`: between a validator and its remote signer.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::large_futures)]
pub mod signer_v1 {
    tonic::include_proto!("switchyard.signer.v1");
}

pub use v1::FILE_DESCRIPTOR_SET;

/// The path of every method of the package as HTTP/2 requests name it, such as `/switchyard.v1.BlockService/GetInfo`.
pub fn method_paths() -> Vec<String> {
    use prost::Message;
    let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default().file;
    let services = files.iter().flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
    services
        .flat_map(|(package, service)| {
            service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_method_has_its_path() {
        let paths = super::method_paths();
        assert_eq!(paths.len(), 25);
        assert!(paths.contains(&"/switchyard.v1.BlockService/StreamSegments".to_owned()));
    }
}
