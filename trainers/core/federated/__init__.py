"""Federated training: clients that keep their pictures, a server that averages what they learn."""
