// cuda_runtime.h has what programs take from here.
#include "cuda_runtime.h"
