"""Deployment: conversion to Larq Compute Engine and TensorFlow Lite, audits, latencies on targets, and exports.

    from bibench_tf import zoo
    from bibench_tf.deploy import audits, conversion, latencies

    model = zoo.resnet20(algorithm="bnn", input_shape=(28, 28, 1))
    content = conversion.convert(model)
    print(audits.audit(content, model).binary_share)
    print(latencies.measure({"resnet20": content})["host"]["resnet20"].latency_ms)

Importing this package imports no TensorFlow.
"""
