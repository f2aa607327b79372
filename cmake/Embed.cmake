# Writes headers into a C++ source as text. Run as a script (cmake -P):
#   -D "ROOTS=<folders>" -D "HEADERS=<paths below one of them>", both separated by |, -D OUTPUT=<file.cpp>
#   -D INCLUDE=<header of the function> -D NAMESPACE=<its namespace> -D TYPE=<struct of path and text>
#   -D FUNCTION=<name>: it returns a std::span<const TYPE>
cmake_minimum_required(VERSION 3.25)
string(REPLACE "|" ";" headers "${HEADERS}")
string(REPLACE "|" ";" roots "${ROOTS}")
list(SORT headers)
set(entries "")
foreach(header IN LISTS headers)
  set(path "")
  foreach(root IN LISTS roots)
    if(NOT path AND EXISTS ${root}/${header})
      set(path ${root}/${header})
    endif()
  endforeach()
  file(READ ${path} text)
  string(FIND "${text}" ")attune_text\"" at)
  if(NOT at EQUAL -1)
    message(FATAL_ERROR "${header} contains )attune_text\", which ends the text it is embedded in")
  endif()
  string(APPEND entries "    ${TYPE}{\"${header}\", R\"attune_text(${text})attune_text\"},\n")
endforeach()
file(WRITE ${OUTPUT}.new
  "// Written by cmake/Embed.cmake. Do not edit.\n"
  "#include \"${INCLUDE}\"\n\n"
  "#include <array>\n\n"
  "namespace ${NAMESPACE} {\n\n"
  "namespace {\n\n"
  "constexpr std::array kHeaders = {\n${entries}};\n\n"
  "}  // namespace\n\n"
  "std::span<const ${TYPE}> ${FUNCTION}() { return kHeaders; }\n\n"
  "}  // namespace ${NAMESPACE}\n")
file(COPY_FILE ${OUTPUT}.new ${OUTPUT} ONLY_IF_DIFFERENT)
file(REMOVE ${OUTPUT}.new)
