// Names as the heap counts them, for comparing with the directory.
#include "heap/heap.hpp"

namespace ndarena::heap {

// `names`: by record, how many names hold it. `waiting`: how many of these are
// of dropped names whose blocks are kept a while.
void heap::count_names(std::vector<std::uint32_t>& names, std::vector<std::uint32_t>& waiting,
                       std::vector<std::string>& findings) {
    struct job {
        std::vector<std::uint32_t>& names;
        std::vector<std::uint32_t>& waiting;
        std::vector<std::string>& findings;
    } report{names, waiting, findings};
    const bool steady = read_steadily(
        [](heap& h, void* out) {
            auto& j = *static_cast<job*>(out);
            const segment::control_page& c = h.seg_->control();
            j.names.assign(c.record_bump, 0);
            j.waiting.assign(c.record_bump, 0);
            for (std::uint32_t i = 0; i < c.record_bump; ++i) {
                const tlsf::block_record& r = h.table_.at(i);
                if (r.state == tlsf::block_state::allocated) {
                    j.names[i] = r.prev_purge;
                }
            }
            std::uint32_t ledgers = 0;
            if ((c.dropped_first == tlsf::nil) != (c.dropped_last == tlsf::nil)) {
                j.findings.emplace_back("the list of dropped names has one end");
            }
            for (std::uint32_t at = c.dropped_first; at != tlsf::nil; ++ledgers) {
                const segment::name_ledger* ledger = h.ledger_in(at);
                if (ledger == nullptr || at >= j.waiting.size() || ledgers > c.record_bump) {
                    j.findings.emplace_back("the list of dropped names is damaged");
                    return;
                }
                ++j.waiting[at];
                const auto* records = reinterpret_cast<const std::uint32_t*>(ledger + 1);
                for (std::uint32_t i = ledger->released; i < ledger->drops; ++i) {
                    const std::uint32_t record = records[ledger->adds + i];
                    if (record < j.waiting.size()) {
                        ++j.waiting[record];
                    } else if (record != tlsf::nil) {
                        j.findings.emplace_back("a dropped name's block has no record");
                    }
                }
                if (ledger->next == tlsf::nil && at != c.dropped_last) {
                    j.findings.emplace_back("the list of dropped names has another end");
                }
                at = ledger->next;
            }
        },
        &report);
    if (!steady) {
        findings.emplace_back("the arena's lock was not to be had");
    }
}

}  // namespace ndarena::heap
