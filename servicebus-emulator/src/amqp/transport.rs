//! The two directions of a connection's socket, each with what has been read of it or is to be written.

use std::io;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// How much is read at once.
const READ_SIZE: usize = 16 * 1024;

pub(crate) struct Transport {
    pub(crate) reader: OwnedReadHalf,
    pub(crate) writer: OwnedWriteHalf,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
}

impl Transport {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader,
            writer,
            input: BytesMut::new(),
            output: BytesMut::new(),
        }
    }

    /// Reads once; 0 is the end.
    pub(crate) async fn read(&mut self) -> io::Result<usize> {
        read(&mut self.reader, &mut self.input).await
    }

    /// Writes all that there is.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all_buf(&mut self.output).await
    }
}

/// Reads once; 0 is the end. Dropping the future loses nothing.
pub(crate) async fn read(reader: &mut OwnedReadHalf, input: &mut BytesMut) -> io::Result<usize> {
    input.reserve(READ_SIZE);
    reader.read_buf(input).await
}
