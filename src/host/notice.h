// What goes on beside the call that is being answered: a damaged cache entry, a folder that cannot be
// written. Never a reason to refuse, so it is said once on stderr instead.
#pragma once

#include <functional>
#include <string>

namespace attune {

// "attune: <text>" on stderr, once a process for each text.
void notice(const std::string& text);

// Where notices go instead; an empty function brings stderr back. For tests.
void set_notice_sink(std::function<void(const std::string&)> sink);

}  // namespace attune
