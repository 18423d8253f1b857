"""What of a video is shown: temporal rules, views and crops, protocols by name, windows."""
