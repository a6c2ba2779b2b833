// Heaps that share one arena as those of several processes do, in one process.
#pragma once

#include "places.hpp"

#include <memory>
#include <utility>

namespace ndarena::heap {

// Past the registry, which would give out the heap that is there already. Locks
// belong to open files, so each of these is alive for as long as its own is open.
struct process_of_its_own {
    static std::shared_ptr<heap> open(const segment_options& options) {
        auto seg = segment::segment::open(options);
        fuzz::require(bool(seg), "an arena can be opened", seg ? "" : seg.err().message);
        auto h = std::make_shared<heap>(std::move(*seg), nullptr);
        const auto started = h->start(nullptr);
        fuzz::require(bool(started), "an arena can be opened",
                      started ? "" : started.err().message);
        return h;
    }
    // What a death between two operations leaves: a poisoned heap gives nothing
    // back, and its slot's lock goes with its file.
    static void kill(std::shared_ptr<heap>& h) {
        h->poison("killed");
        h.reset();
    }
};

}  // namespace ndarena::heap
