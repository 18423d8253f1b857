"""One file per task: labels, loss, scores, figures, and what is shown of them."""
