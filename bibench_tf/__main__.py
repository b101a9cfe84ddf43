"""`python -m bibench_tf` is `bibench`."""

from bibench_tf.cli import main

main()
