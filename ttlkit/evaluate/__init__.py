"""How good is it: metrics, scores on test sets, and published baselines to compare with."""
