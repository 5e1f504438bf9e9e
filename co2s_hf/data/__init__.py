"""Reading images and masks, finding and checking a data split, and drawing synthetic scenes."""
