"""Generated pictures whose every pixel is known."""
