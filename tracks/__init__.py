"""The tracks of the benchmark, one folder each: plan, measure, score, and the options of the track."""
