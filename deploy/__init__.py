"""Deployment: conversion to Larq Compute Engine and TensorFlow Lite, and measurement on a target."""
