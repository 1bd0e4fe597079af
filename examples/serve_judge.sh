#!/usr/bin/env bash
# Serves a judge with vLLM, over all GPUs that are visible.
#
#   MODEL_PATH=/models/Qwen2.5-VL-7B-Instruct bash examples/serve_judge.sh
#   MODEL_PATH=... TENSOR_PARALLEL=2 PORT=8001 bash examples/serve_judge.sh --gpu-memory-utilization 0.9
#
# Arguments are passed on to `vllm serve`. Environment variables:
#
#   MODEL_PATH        folder of the model, or its name at Hugging Face; required
#   SERVED_NAME       what clients call it: the judge's `vlm_model` (last part of MODEL_PATH)
#   HOST, PORT        where it listens (127.0.0.1, 8000)
#   TENSOR_PARALLEL   GPUs that share one copy of the model (1)
#   DATA_PARALLEL     copies of the model (visible GPUs / TENSOR_PARALLEL)
#   MAX_MODEL_LEN     tokens of a request and its answer (8192)
#   VLLM_API_KEY      key that clients must send; vLLM reads it from the environment
#   DRY_RUN           1 prints the command and starts nothing
#
# Visible are the GPUs in CUDA_VISIBLE_DEVICES or, where that is not set, all that nvidia-smi lists.
# Exits with 2 where something is missing or does not fit.
set -euo pipefail

refuse() {
    printf 'serve_judge.sh: %s\n' "$@" >&2
    exit 2
}

require_count() { # variable's name, its value
    [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || refuse "$1 must be a whole number of 1 or more, not '$2'"
}

count_gpus() {
    if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        local devices device count=0
        IFS=', ' read -r -a devices <<<"$CUDA_VISIBLE_DEVICES"
        for device in ${devices[@]+"${devices[@]}"}; do
            # CUDA ends its list at the first entry that is no device; -1 is how GPUs are hidden.
            [[ $device =~ ^([0-9]+|GPU-.+|MIG-.+)$ ]] || break
            count=$((count + 1))
        done
        echo "$count"
    elif command -v nvidia-smi >/dev/null; then
        nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ' || true
    else
        echo 0
    fi
}

MODEL_PATH=${MODEL_PATH:-}
HOST=${HOST:-127.0.0.1}
PORT=${PORT:-8000}
MAX_MODEL_LEN=${MAX_MODEL_LEN:-8192}
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}

[[ -n $MODEL_PATH ]] ||
    refuse 'MODEL_PATH is not set: give the folder of a model, or its name at Hugging Face, as in' \
        '  MODEL_PATH=/models/Qwen2.5-VL-7B-Instruct bash examples/serve_judge.sh'
if [[ ! -d $MODEL_PATH && ! $MODEL_PATH =~ ^[A-Za-z0-9][^/]*/[^/]+$ ]]; then
    refuse "MODEL_PATH '$MODEL_PATH' is no folder, nor a name at Hugging Face (owner/model): download the model there," \
        '  or mend the path'
fi
command -v vllm >/dev/null ||
    refuse 'vllm is not installed, or not on PATH: activate its environment, or make one and run' '  pip install vllm'
for argument in "$@"; do
    case $argument in
    --api-key* | --api_key*) # everyone on this machine can read command lines
        refuse 'a key on the command line can be read by all users: set VLLM_API_KEY in the environment instead' ;;
    esac
done
for variable in PORT MAX_MODEL_LEN TENSOR_PARALLEL; do
    require_count "$variable" "${!variable}"
done

gpus=$(count_gpus)
if ((gpus == 0)); then
    refuse "no GPU is visible (CUDA_VISIBLE_DEVICES: ${CUDA_VISIBLE_DEVICES-not set}):" \
        '  look at what nvidia-smi lists, and name the GPUs to use, as in CUDA_VISIBLE_DEVICES=0,1'
fi
if [[ -z ${DATA_PARALLEL:-} ]]; then
    if ((gpus % TENSOR_PARALLEL != 0)); then
        refuse "TENSOR_PARALLEL=$TENSOR_PARALLEL does not divide the $gpus visible GPUs: choose one that does," \
            '  show fewer GPUs with CUDA_VISIBLE_DEVICES, or leave some idle by setting DATA_PARALLEL, too'
    fi
    DATA_PARALLEL=$((gpus / TENSOR_PARALLEL))
fi
require_count DATA_PARALLEL "$DATA_PARALLEL"
if ((TENSOR_PARALLEL * DATA_PARALLEL > gpus)); then
    refuse "TENSOR_PARALLEL=$TENSOR_PARALLEL times DATA_PARALLEL=$DATA_PARALLEL is more than the $gpus visible GPUs"
fi

if [[ -d $MODEL_PATH ]]; then
    last_part=$(basename -- "$(cd -- "$MODEL_PATH" && pwd)")
else
    last_part=${MODEL_PATH##*/}
fi
SERVED_NAME=${SERVED_NAME:-$last_part}

command=(
    vllm serve "$MODEL_PATH"
    --served-model-name "$SERVED_NAME"
    --host "$HOST"
    --port "$PORT"
    --tensor-parallel-size "$TENSOR_PARALLEL"
    --data-parallel-size "$DATA_PARALLEL"
    --max-model-len "$MAX_MODEL_LEN"
    "$@"
)
if [[ ${DRY_RUN:-} == 1 ]]; then
    printf '%q ' "${command[@]}"
    echo
    exit
fi
if [[ $HOST != 127.0.0.1 && $HOST != localhost && $HOST != ::1 && -z ${VLLM_API_KEY:-} ]]; then
    echo "serve_judge.sh: $HOST may be reached from other machines, and VLLM_API_KEY is not set: anyone may ask" >&2
fi
echo "serve_judge.sh: $((TENSOR_PARALLEL * DATA_PARALLEL)) GPUs; clients use vlm_model='$SERVED_NAME', api_base_url='http://$HOST:$PORT/v1'" >&2
exec "${command[@]}"
