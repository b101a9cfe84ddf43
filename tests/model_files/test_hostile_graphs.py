"""SavedModels with operations that reach files, programs or addresses, and such that TensorFlow would read otherwise.

A test fails when a graph is accepted that holds anything but arithmetic, variables and calls.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from bibench_tf import model_files
from bibench_tf.errors import BibenchError
from bibench_tf.model_files import graphs

raw = tf.raw_ops
ROW = tf.TensorSpec((1, 3), tf.float32, name="row")


def saved(folder, effect):
    """A SavedModel of one function, which has an effect and gives its input; `effect` builds its operations."""
    module = tf.Module()

    @tf.function(input_signature=[ROW])
    def serve(row):
        effect(row)
        return {"out": tf.identity(row)}

    tf.saved_model.save(module, str(folder), serve)
    return folder


def refused(folder, match):
    for read in (model_files.load, model_files.plain_saved_model, model_files.load_graph):
        with pytest.raises(BibenchError, match=match) as error:
            read(folder)
        assert str(folder) in str(error.value) and "\n" not in str(error.value)


def rewritten(folder, change):
    """Change the protocol buffer of a SavedModel by a function of its only graph."""
    content = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    change(content.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(content.SerializeToString())


def writer():
    return raw.SummaryWriter(shared_name="w", container="")


EFFECTS = {
    "WriteFile": lambda row, path: tf.io.write_file(path, "text"),
    "ReadFile": lambda row, path: tf.io.read_file("/etc/passwd"),
    "MatchingFiles": lambda row, path: tf.io.matching_files("/etc/*"),
    "SaveV2": lambda row, path: raw.SaveV2(prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[row]),
    "RestoreV2": lambda row, path: raw.RestoreV2(
        prefix=path, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    ),
    "MergeV2Checkpoints": lambda row, path: raw.MergeV2Checkpoints(
        checkpoint_prefixes=[path], destination_prefix=path, delete_old_dirs=True
    ),
    "SummaryWriter|CreateSummaryFileWriter": lambda row, path: raw.CreateSummaryFileWriter(
        writer=writer(), logdir=path, max_queue=1, flush_millis=1, filename_suffix=""
    ),
    "DebugIdentityV2": lambda row, path: raw.DebugIdentityV2(input=row, debug_urls=[f"file://{path}"]),
    "DebugIdentity": lambda row, path: raw.DebugIdentity(input=row, debug_urls=[f"file://{path}"]),
    "DebugNanCount": lambda row, path: raw.DebugNanCount(input=row, debug_urls=["grpc://example.org:1"]),
    "PrintV2|StringFormat": lambda row, path: tf.print(row, output_stream=f"file://{path}"),
    "EagerPyFunc": lambda row, path: tf.py_function(lambda x: x, [row], tf.float32),
    "PyFuncStateless": lambda row, path: raw.PyFuncStateless(input=[row], token="pyfunc_0", Tout=[tf.float32]),
    "ImmutableConst": lambda row, path: raw.ImmutableConst(
        dtype=tf.float32, shape=(2,), memory_region_name="/etc/passwd"
    ),
    "TextLineDataset|TensorSliceDataset": lambda row, path: tf.data.TextLineDataset("/etc/passwd")._variant_tensor,
    "DecodeProtoV2": lambda row, path: raw.DecodeProtoV2(
        bytes="x", message_type="a", field_names=["a"], output_types=[tf.float32], descriptor_source="/etc/passwd"
    ),
    "GenerateVocabRemapping": lambda row, path: raw.GenerateVocabRemapping(
        new_vocab_file="/etc/passwd", old_vocab_file="/etc/passwd", new_vocab_offset=0, num_new_vocab=1
    ),
    "HashTableV2": lambda row, path: raw.InitializeTableFromTextFileV2(
        table_handle=raw.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="t"),
        filename="/etc/passwd",
        key_index=-2,
        value_index=-1,
    ),
    "RpcClient|RemoteCall|_Send|Send|Abort": lambda row, path: raw.Abort(error_msg="stop"),
    "FileSystemSetConfiguration": lambda row, path: raw.FileSystemSetConfiguration(scheme="file", key="a", value="b"),
    "Timestamp": lambda row, path: tf.timestamp(),
}


@pytest.mark.parametrize("operations", EFFECTS)
def test_operations_with_effects(tmp_path, ran, operations):
    saved(tmp_path / "graph", lambda row: EFFECTS[operations](row, str(ran)))
    refused(tmp_path / "graph", f"contains the operation ({operations}), which is not among those on tensors")


@pytest.mark.parametrize("place", ["nested function", "branch", "loop"])
def test_wherever_it_is_put(tmp_path, ran, place):
    def write(row):
        tf.io.write_file(str(ran), "text")
        return row

    def effect(row):
        if place == "nested function":
            tf.function(write)(row)
        elif place == "branch":
            tf.cond(tf.reduce_sum(row) > 0, lambda: write(row), lambda: row)
        else:
            tf.while_loop(lambda x: tf.reduce_sum(x) > 0, lambda x: [write(x)], [row])

    refused(saved(tmp_path / "graph", effect), "contains the operation WriteFile")


def test_no_operation_with_effects_is_known():
    """All operations of TensorFlow by their names: none of those accepted without a list says that it reaches out."""
    every = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())).op
    known = {operation.name for operation in every if graphs._is_known(operation.name)}
    assert {"Conv2D", "Relu", "MatMul", "Einsum", "VarHandleOp", "StatefulPartitionedCall"} < known
    assert len(known) < len(every) / 2
    words = "File Save Restore Read Write Py Print Summary Dataset Iterator Table Remote Rpc Send Recv Queue Debug Mlir"
    suspicious = {name for name in known if any(word in name for word in words.split())}
    assert suspicious == {
        "DebugGradientIdentity",  # a mark in the graph
        "DebugGradientRefIdentity",
        "DebugNumericSummaryV2",  # statistics of a tensor, as a tensor
        "BoostedTreesMakeStatsSummary",  # also of tensors
        "ReadVariableOp",
        "DisableCopyOnRead",
        "RngReadAndSkip",
    }


@pytest.fixture
def harmless_graph(tmp_path):
    module = tf.Module()
    module.scale = tf.Variable([1.0, 2.0, 3.0])
    serve = tf.function(lambda row: {"out": row * module.scale}, input_signature=[ROW])
    tf.saved_model.save(module, str(tmp_path / "graph"), serve)
    return tmp_path / "graph"


def test_a_harmless_graph(harmless_graph):
    assert model_files.plain_saved_model(harmless_graph)
    loaded = model_files.load_graph(harmless_graph)
    np.testing.assert_array_equal(loaded.signatures["serving_default"](tf.ones((1, 3)))["out"], [[1, 2, 3]])


def saver_function(graph):
    node = next(node for node in graph.graph_def.node if f"{node.name}:0" == graph.saver_def.save_tensor_name)
    return node.attr["f"].func.name


def test_the_saver_called_from_elsewhere(harmless_graph):
    """Every SavedModel holds a function that writes a checkpoint; only the saver, which nothing runs, may call it."""

    def change(graph):
        name = saver_function(graph)
        serve = next(
            each for each in graph.graph_def.library.function if "ReadVariableOp" in {n.op for n in each.node_def}
        )
        node = serve.node_def.add(name="harm", op="StatefulPartitionedCall")
        node.attr["f"].func.name = name

    rewritten(harmless_graph, change)
    refused(harmless_graph, "SaveV2|MergeV2Checkpoints|ShardedFilename|StringJoin|StaticRegexFullMatch")


@pytest.mark.parametrize("way", ["operation", "object", "gradient", "interface", "nested attribute"])
def test_other_ways_to_the_saver(harmless_graph, way):
    def change(graph):
        name = saver_function(graph)
        library = graph.graph_def.library
        if way == "operation":
            library.function[0].node_def.add(name="harm", op=name)
        elif way == "object":
            graph.object_graph_def.concrete_functions[name].canonicalized_input_signature.SetInParent()
        elif way == "gradient":
            library.gradient.add(function_name=library.function[0].signature.name, gradient_func=name)
        elif way == "interface":
            function = next(each for each in library.function if each.signature.name == name)
            function.attr["api_implements"].s = b"serve"
        else:
            node = graph.graph_def.node.add(name="harm", op="NoOp")
            node.attr["f"].list.func.add().attr["g"].func.name = name

    rewritten(harmless_graph, change)
    refused(harmless_graph, "contains the operation")


def test_the_saver_of_an_older_graph(harmless_graph):
    """Without objects TensorFlow takes a graph for one of TensorFlow 1, and runs its saver."""
    rewritten(harmless_graph, lambda graph: graph.ClearField("object_graph_def"))
    refused(harmless_graph, "contains the operation")


def test_two_graphs(harmless_graph):
    content = saved_model_pb2.SavedModel.FromString((harmless_graph / "saved_model.pb").read_bytes())
    content.meta_graphs.add().CopyFrom(content.meta_graphs[0])
    (harmless_graph / "saved_model.pb").write_bytes(content.SerializeToString())
    refused(harmless_graph, "contains the operation")


def test_a_function_with_the_name_of_an_operation(harmless_graph):
    rewritten(
        harmless_graph,
        lambda graph: graph.graph_def.library.function.add().signature.MergeFrom(op_def_pb2.OpDef(name="WriteFile")),
    )
    refused(harmless_graph, "its function 'WriteFile' has the name of an operation")


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
def test_a_second_graph_file(harmless_graph, name):
    """TensorFlow prefers a `.cpb` to the file that was checked."""
    shutil.copy(harmless_graph / "saved_model.pb", harmless_graph / name)
    refused(harmless_graph, f"it holds '{name}' beside 'saved_model.pb'")


def test_constants_that_repeat_one_number(harmless_graph):
    """A constant of 40 GB is 20 bytes long."""

    def change(graph):
        node = graph.graph_def.node.add(name="harm", op="Const")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        tensor = node.attr["value"].tensor
        tensor.dtype = tf.float32.as_datatype_enum
        tensor.tensor_shape.MergeFrom(tf.TensorShape((10**5, 10**5)).as_proto())
        tensor.float_val.append(1.0)

    rewritten(harmless_graph, change)
    refused(harmless_graph, "its constants together take 37.3 GiB, more than the 8.0 GiB")


def test_a_graph_of_many_bytes(harmless_graph):
    with open(harmless_graph / "saved_model.pb", "r+b") as file:
        file.truncate(2**30 + 2**20)  # without memory: the rest is a hole in the file
    refused(harmless_graph, "'saved_model.pb' takes 1.0 GiB, more than the 1.0 GiB")


def test_unknown_operations(harmless_graph):
    rewritten(harmless_graph, lambda graph: graph.graph_def.node.add(name="harm", op="LoadMyLibrary"))
    refused(harmless_graph, "contains the operation LoadMyLibrary")


# The metadata of Keras
@pytest.fixture
def keras_folder(harmless, tmp_path):
    return shutil.copytree(harmless / "network", tmp_path / "keras")


def test_a_lambda_in_the_metadata(keras_folder, ran):
    code = {"class_name": "Lambda", "config": {"name": "harm", "function": ["4w==", None, None]}, "name": "harm"}
    content = (keras_folder / "keras_metadata.pb").read_bytes()
    from keras.protobuf import saved_metadata_pb2

    messages = saved_metadata_pb2.SavedMetadata.FromString(content)
    root = messages.nodes[0]
    metadata = json.loads(root.metadata)
    metadata["config"]["layers"].append({**code, "inbound_nodes": []})
    root.metadata = json.dumps(metadata)
    (keras_folder / "keras_metadata.pb").write_bytes(messages.SerializeToString())
    with pytest.raises(BibenchError, match="layer 'harm' is a Lambda"):
        model_files.load(keras_folder)


@pytest.mark.parametrize("name", ["saved_model.pb", "keras_metadata.pb", "variables/variables.index"])
def test_damaged_saved_models(keras_folder, name):
    """Cut off, emptied, replaced and changed: one sentence, or the network."""
    path = keras_folder / name
    content = path.read_bytes()
    random = np.random.default_rng(3)
    damaged = [content[: len(content) * part // 5] for part in range(5)] + [b"\xff" * 50, b"text", b"\n\x05\x08"]
    for _ in range(25):
        changed = bytearray(content)
        for position in random.integers(0, len(content), 6):
            changed[position] = random.integers(0, 256)
        damaged.append(bytes(changed))
    for each in damaged:
        path.write_bytes(each)
        for read in (model_files.load, model_files.plain_saved_model):
            try:
                read(keras_folder)
            except BibenchError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["variables", "variables/variables.index", "variables/variables.data-00000-of-00001"])
def test_saved_models_without_a_part(keras_folder, name):
    path = keras_folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BibenchError, match="cannot be loaded|is not loaded"):
        model_files.load(keras_folder)
