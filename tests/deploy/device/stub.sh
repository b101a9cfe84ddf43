#!/bin/sh
# A stand-in for lce_benchmark_model: takes its flags and prints what it prints, with invented timings.
unknown='' csv='' profile=false num_runs=50 min_secs=1 num_threads=-1 graph=''
for flag; do
    value=${flag#*=}
    case "$flag" in
    --graph=*) graph=$value ;;
    --num_threads=*) num_threads=$value ;;
    --num_runs=*) num_runs=$value ;;
    --min_secs=*) min_secs=$value ;;
    --max_secs=* | --warmup_runs=* | --warmup_min_secs=*) ;;
    --enable_op_profiling=*) profile=$value ;;
    --profiling_output_csv_file=*) csv=$value ;;
    *) unknown="$unknown $flag" ;;
    esac
done
folder=${graph%/*}
#FAULT#
echo 'INFO: STARTING!'
echo 'INFO: this is a stub; its timings are invented'
[ -z "$unknown" ] || echo "WARN: Unconsumed cmdline flags:$unknown"
echo "INFO: Num threads: [$num_threads]"
echo "INFO: Graph: [$graph]"
if [ ! -s "$graph" ]; then
    echo "ERROR: Could not open '$graph'." >&2
    echo 'ERROR: Benchmarking failed.' >&2
    exit 1
fi
echo "INFO: Loaded model $graph"
echo 'INFO: Initialized session in 0.63ms.'
echo 'INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.'
echo 'INFO: count=132 first=3678 curr=3790 min=3270 max=5473 avg=3751.66 std=334'
echo
echo "INFO: Running benchmark for at least $num_runs iterations and at least $min_secs seconds but terminate if exceeding 150 seconds."
echo "INFO: count=$num_runs first=3937 curr=3959 min=3190 max=6333 avg=3790.92 std=358"
echo
echo 'INFO: Inference timings in us: Init: 630, First inference: 3678, Warmup (avg): 3751.66, Inference (avg): 3790.92'
echo 'INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual one.'
echo 'INFO: Memory footprint delta from the start of the tool (MB): init=8.97656 overall=18.7227'
if [ "$profile" = true ]; then
    [ -z "$csv" ] || exec >"$csv"
    cat <<'PROFILE'
#PROFILE#
PROFILE
fi
