"""What readings are imported from: files and databases of several formats, each as rows."""
