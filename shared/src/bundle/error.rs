//! What can be wrong with a bundle. Each error names the thing, what was found, and what was expected.

use thiserror::Error;

/// Why a bundle cannot be read or written.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum BundleError {
    /// The file is longer than any bundle, or too short to be one.
    #[error("the file has {found} bytes, expected {min} to {max}")]
    FileSize {
        /// Bytes in the file.
        found: u64,
        /// Least possible.
        min: u64,
        /// Most accepted.
        max: u64,
    },
    /// The header claims more bytes than accepted.
    #[error("the header has {found} bytes, expected at most {max}")]
    HeaderSize {
        /// Bytes claimed by the file's first eight bytes.
        found: u64,
        /// Most accepted.
        max: u64,
    },
    /// The file ends early, or goes on after its last tensor.
    #[error("the file has {found} bytes, its header promises {expected}")]
    Length {
        /// Bytes in the file.
        found: u64,
        /// Bytes the header accounts for.
        expected: u64,
    },
    /// The header is not that of a safetensors file.
    #[error("not a safetensors header: {0}")]
    Header(String),
    /// A metadata entry is missing: a safetensors file, but not a bundle.
    #[error("metadata `{key}` is missing: not a limbeck bundle")]
    NoMetadata {
        /// The entry.
        key: String,
    },
    /// A metadata entry is not JSON.
    #[error("metadata `{key}` is not JSON: {problem}")]
    NotJson {
        /// The entry.
        key: String,
        /// What the parser says, with line and column.
        problem: String,
    },
    /// A bundle of another version of the format.
    #[error("version {found}, expected {expected}")]
    Version {
        /// The file's version.
        found: u64,
        /// The version this build reads.
        expected: u32,
    },
    /// A field that must be there is not.
    #[error("`{path}` is missing")]
    MissingField {
        /// Where in the metadata, as in `limbeck.image.height`.
        path: String,
    },
    /// A field this version does not have.
    #[error("`{path}` is not a field of this version")]
    UnknownField {
        /// Where in the metadata.
        path: String,
    },
    /// A field of the wrong type or outside its limits.
    #[error("`{path}`: found {found}, expected {expected}")]
    Field {
        /// Where in the metadata.
        path: String,
        /// What it holds.
        found: String,
        /// What would do.
        expected: String,
    },
    /// The network's configuration cannot be built.
    #[error("network {network}: {problem}")]
    Network {
        /// Index in the bundle.
        network: usize,
        /// What the graph builder says.
        problem: String,
    },
    /// The networks have more parameters than accepted.
    #[error("{found} parameters, expected at most {max}")]
    TooManyParams {
        /// In all networks together.
        found: u64,
        /// Most accepted.
        max: u64,
    },
    /// Metadata `config` disagrees with `limbeck.networks[0]`.
    #[error("metadata `config` differs from `limbeck.networks[0]`")]
    ConfigMismatch,
    /// A network does not take or give images of the declared shape.
    #[error("network {network}: {side} has shape {found:?}, expected {expected:?}")]
    ImageShape {
        /// Index in the bundle.
        network: usize,
        /// `input` or `output`.
        side: &'static str,
        /// `[channels, height, width]` of the network.
        found: [usize; 3],
        /// `[channels, height, width]` declared by the bundle.
        expected: [usize; 3],
    },
    /// A network's time inputs do not fit `second_time` and `guidance_input`.
    #[error("network {network} has {found} time inputs, expected {expected}")]
    TimeInputs {
        /// Index in the bundle.
        network: usize,
        /// Time inputs of the network.
        found: usize,
        /// Noise level, plus one for each of the two flags.
        expected: usize,
    },
    /// The class names (and the null label) do not fill the label table.
    #[error("network {network} has {found} rows of labels, expected {expected} (class names and null label)")]
    Classes {
        /// Index in the bundle.
        network: usize,
        /// Rows of the network's label table.
        found: usize,
        /// Class names, plus one for the null label.
        expected: usize,
    },
    /// The null label is not the row after the classes.
    #[error("null label {found}, expected {expected}: the row after the classes")]
    NullLabel {
        /// What the bundle says.
        found: u32,
        /// Number of classes.
        expected: usize,
    },
    /// A bundle that draws lists no sampler.
    #[error("`limbeck.samplers` is empty, expected at least one sampler")]
    NoSampler,
    /// A listed sampler cannot run on this model.
    #[error("`{path}`: {problem}")]
    Sampler {
        /// Where in the metadata.
        path: String,
        /// What the program builder says.
        problem: String,
    },
    /// The golden image has another number of pixels.
    #[error("the golden image has {found} values, expected {expected}")]
    GoldenPixels {
        /// Values stored.
        found: usize,
        /// Channels times height times width.
        expected: usize,
    },
    /// A parameter of the network is not in the file.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Its name in the file.
        name: String,
    },
    /// The file holds a tensor no network has.
    #[error("tensor `{name}` belongs to no network")]
    ExtraTensor {
        /// Its name in the file.
        name: String,
    },
    /// A tensor of the wrong shape.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    TensorShape {
        /// Its name in the file.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape of the network's parameter.
        expected: Vec<usize>,
    },
    /// A tensor of a type bundles do not use.
    #[error("tensor `{name}` holds {found}, expected F16 or F32")]
    TensorType {
        /// Its name in the file.
        name: String,
        /// The type in the file.
        found: String,
    },
    /// A weight that is NaN or infinite.
    #[error("tensor `{name}`: element {index} is {value}, expected a finite number")]
    NotFinite {
        /// Its name in the file.
        name: String,
        /// Which element.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// A weight too large for half precision.
    #[error("tensor `{name}`: element {index} is {value}, expected at most 65504 (half precision)")]
    F16Overflow {
        /// Its name in the file.
        name: String,
        /// Which element.
        index: usize,
        /// The weight.
        value: f32,
    },
    /// Weights that are not those of the described networks.
    #[error("{what}: found {found}, expected {expected}")]
    Weights {
        /// Number of networks, or length of one network's weights.
        what: String,
        /// What was given.
        found: usize,
        /// What the networks have.
        expected: usize,
    },
    /// A request outside what the bundle supports.
    #[error("{what} {found} is not supported; this bundle supports {supported}")]
    Unsupported {
        /// `sampler`, `steps` or `guidance`.
        what: &'static str,
        /// What was asked for.
        found: String,
        /// What may be asked for.
        supported: String,
    },
}
