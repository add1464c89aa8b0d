"""The networks: transformer, autoencoder and text embeddings, their sizes and the sequence they work on."""
