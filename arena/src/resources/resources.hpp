// Layer 7: whoever can hand memory to NumPy, and adaptors that stand before an
// upstream. One resource or adaptor a file; includes heap, platform and base.
#pragma once

#include "resources/aligned_adaptor.hpp"
#include "resources/arena_resource.hpp"
#include "resources/fallback_adaptor.hpp"
#include "resources/foreign_resource.hpp"
#include "resources/function_resource.hpp"
#include "resources/limiting_adaptor.hpp"
#include "resources/locked_adaptor.hpp"
#include "resources/replay.hpp"
#include "resources/resource.hpp"
#include "resources/size_map.hpp"
#include "resources/statistics_adaptor.hpp"
#include "resources/threshold_adaptor.hpp"
#include "resources/trace.hpp"
#include "resources/tracing_adaptor.hpp"
#include "resources/unaligned_resource.hpp"
