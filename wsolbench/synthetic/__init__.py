"""Generated pictures whose every pixel is known, and the small backbones trained for them."""
